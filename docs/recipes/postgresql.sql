-- Amounts, dates and percentages as printed in documents; null where it is not sure what they mean.
-- The rules are in docs/queries.md. PostgreSQL: run this once; the functions go to the first schema of search_path.

-- The text with plain spaces, apostrophes and minus signs.
CREATE OR REPLACE FUNCTION plain_of(value text) RETURNS text LANGUAGE sql IMMUTABLE AS $$
    SELECT trim(translate(value, chr(160) || chr(8239) || chr(8217) || chr(8722), '  ''-'));
$$;

-- What stands around the number: '($#)' of '($1,234.56)'.
CREATE OR REPLACE FUNCTION frame_of(value text) RETURNS text LANGUAGE sql IMMUTABLE AS $$
    SELECT replace(regexp_replace(plain_of(value), '^([^0-9.,]*)[.,]?[0-9]([0-9.,'' ]*[0-9])?', '\1#'), ' ', '');
$$;

CREATE OR REPLACE FUNCTION currency_of(value text) RETURNS text LANGUAGE sql IMMUTABLE AS $$
    SELECT CASE WHEN regexp_replace(frame_of(value), '[-()#]', '', 'g')
            IN ('$', 'US$', 'C$', 'CA$', 'A$', '€', '£', '¥', 'USD', 'CAD', 'AUD', 'EUR', 'GBP', 'CHF', 'JPY')
        THEN regexp_replace(frame_of(value), '[-()#]', '', 'g') END;
$$;

-- '1234.56' of '1,234.56' and '1.234,56'; null where that is not sure.
CREATE OR REPLACE FUNCTION digits_of(number text, decimal_mark text) RETURNS text LANGUAGE sql IMMUTABLE AS $$
    SELECT CASE
        WHEN number ~ '^[1-9][0-9]{0,2}((,[0-9]{3})+[.][0-9]+|(,[0-9]{3}){2,})$' THEN replace(number, ',', '')
        WHEN number ~ '^[1-9][0-9]{0,2}(([.][0-9]{3})+,[0-9]+|([.][0-9]{3}){2,})$'
            THEN replace(replace(number, '.', ''), ',', '.')
        WHEN number ~ '^[1-9][0-9]{0,2}(( [0-9]{3})+|(''[0-9]{3})+)([.,][0-9]+)?$'
            THEN replace(translate(number, ' ''', ''), ',', '.')
        WHEN number ~ '^[1-9][0-9]{0,2}[.,][0-9]{3}$'
            THEN CASE WHEN strpos(number, decimal_mark) = 0 THEN translate(number, '.,', '') END
        WHEN number ~ '^([0-9]+|[0-9]*[.,][0-9]{1,2})$'
            OR number ~ '^[0-9]*[.,][0-9]+$' AND strpos(number, decimal_mark) > 0
            THEN replace(number, ',', '.')
    END;
$$;

CREATE OR REPLACE FUNCTION amount_of(value text, value_type text, decimal_mark text) RETURNS numeric
LANGUAGE sql IMMUTABLE AS $$
    SELECT CASE
        WHEN value_type = 'number' THEN value::numeric
        WHEN replace(frame_of(value), coalesce(currency_of(value), ''), '') IN ('#', '-#', '#-', '(#)') THEN
            (CASE WHEN frame_of(value) ~ '[-(]' THEN '-' ELSE '' END
            || digits_of(trim(regexp_replace(plain_of(value), '[^0-9.,'' ]', '', 'g')), decimal_mark))::numeric
    END;
$$;

-- 12.5 of '12.5%'.
CREATE OR REPLACE FUNCTION percent_of(value text) RETURNS numeric LANGUAGE sql IMMUTABLE AS $$
    SELECT CASE WHEN plain_of(value) ~ '^-?[0-9]{1,3}([.][0-9]+|,[0-9]{1,2})? ?(%|percent)$'
        THEN replace(regexp_replace(plain_of(value), ' ?(%|percent)$', ''), ',', '.')::numeric END;
$$;

-- The words of a date: 'jan 31 2024' of 'Jan. 31st, 2024', '1 31 2024' of '1/31/2024'.
CREATE OR REPLACE FUNCTION words_of(value text) RETURNS text LANGUAGE sql IMMUTABLE AS $$
    SELECT regexp_replace(regexp_replace(regexp_replace(lower(plain_of(value)),
        '[t ][0-9]{1,2}:[0-9]{2}.*$', ''), '([0-9])(st|nd|rd|th)', '\1'), '[-/., ]+', ' ', 'g');
$$;

CREATE OR REPLACE FUNCTION month_of(word text) RETURNS integer LANGUAGE sql IMMUTABLE AS $$
    SELECT CASE WHEN word ~ ('^(jan(uary)?|feb(ruary)?|mar(ch)?|apr(il)?|may|june?|july?|aug(ust)?|sept?(ember)?'
        || '|oct(ober)?|nov(ember)?|dec(ember)?)$')
        THEN (strpos('janfebmaraprmayjunjulaugsepoctnovdec', left(word, 3)) + 2) / 3 END;
$$;

-- '2024-1-31'; null where it is not sure which number is what.
CREATE OR REPLACE FUNCTION ymd_of(words text, dots boolean, day_order text) RETURNS text LANGUAGE sql IMMUTABLE AS $$
    SELECT CASE
        WHEN words ~ '^[12][0-9]{3} [0-9]{1,2} [0-9]{1,2}$' THEN replace(words, ' ', '-')
        WHEN words ~ '^[a-z]+ [0-9]{1,2} [12][0-9]{3}$' THEN
            split_part(words, ' ', 3) || '-' || month_of(split_part(words, ' ', 1)) || '-' || split_part(words, ' ', 2)
        WHEN words ~ '^[0-9]{1,2} [a-z]+ [12][0-9]{3}$' THEN
            split_part(words, ' ', 3) || '-' || month_of(split_part(words, ' ', 2)) || '-' || split_part(words, ' ', 1)
        WHEN words ~ '^[0-9]{1,2} (1[3-9]|[23][0-9]) [0-3][0-9]$'
            THEN regexp_replace(words, '^([0-9]+) ([0-9]+) ([0-9]+)$', '20\3-\1-\2')
        WHEN words !~ '^[0-9]{1,2} [0-9]{1,2} [12][0-9]{3}$' THEN NULL
        WHEN words ~ '^[0-9]+ (1[3-9]|[23][0-9]) ' OR split_part(words, ' ', 1) = split_part(words, ' ', 2)
            OR NOT dots AND day_order = 'MDY' AND words ~ '^(0?[0-9]|1[0-2]) '
            THEN regexp_replace(words, '^([0-9]+) ([0-9]+) ([0-9]+)$', '\3-\1-\2')
        WHEN words ~ '^(1[3-9]|[23][0-9]) ' OR NOT dots AND day_order = 'DMY'
            THEN regexp_replace(words, '^([0-9]+) ([0-9]+) ([0-9]+)$', '\3-\2-\1')
    END;
$$;

CREATE OR REPLACE FUNCTION date_of(value text, day_order text) RETURNS date LANGUAGE sql IMMUTABLE AS $$
    SELECT CASE WHEN month BETWEEN 1 AND 12 AND extract(month FROM make_date(year, month, 1) + day - 1) = month
        THEN make_date(year, month, 1) + day - 1 END
    FROM (
        SELECT split_part(ymd, '-', 1)::integer AS year, split_part(ymd, '-', 2)::integer AS month,
               split_part(ymd, '-', 3)::integer AS day
        FROM (SELECT ymd_of(words_of(value), strpos(value, '.') > 0, day_order) AS ymd) AS text_of_it
    ) AS parts;
$$;
