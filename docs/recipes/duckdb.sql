-- Amounts, dates and percentages as printed in documents; null where it is not sure what they mean.
-- The rules are in docs/queries.md. DuckDB: run this once in each session.

-- The text with plain spaces, apostrophes and minus signs.
CREATE OR REPLACE TEMP MACRO plain_of(value) AS
    trim(translate(value, chr(160) || chr(8239) || chr(8217) || chr(8722), '  ''-'));

-- What stands around the number: '($#)' of '($1,234.56)'.
CREATE OR REPLACE TEMP MACRO frame_of(value) AS
    replace(regexp_replace(plain_of(value), '^([^0-9.,]*)[.,]?[0-9]([0-9.,'' ]*[0-9])?', '\1#'), ' ', '');

CREATE OR REPLACE TEMP MACRO currency_of(value) AS
    CASE WHEN regexp_replace(frame_of(value), '[-()#]', '', 'g')
        IN ('$', 'US$', 'C$', 'CA$', 'A$', '€', '£', '¥', 'USD', 'CAD', 'AUD', 'EUR', 'GBP', 'CHF', 'JPY')
    THEN regexp_replace(frame_of(value), '[-()#]', '', 'g') END;

-- '1234.56' of '1,234.56' and '1.234,56'; null where that is not sure.
CREATE OR REPLACE TEMP MACRO digits_of(number, decimal_mark) AS CASE
    WHEN regexp_matches(number, '^[1-9][0-9]{0,2}((,[0-9]{3})+[.][0-9]+|(,[0-9]{3}){2,})$')
        THEN replace(number, ',', '')
    WHEN regexp_matches(number, '^[1-9][0-9]{0,2}(([.][0-9]{3})+,[0-9]+|([.][0-9]{3}){2,})$')
        THEN replace(replace(number, '.', ''), ',', '.')
    WHEN regexp_matches(number, '^[1-9][0-9]{0,2}(( [0-9]{3})+|(''[0-9]{3})+)([.,][0-9]+)?$')
        THEN replace(translate(number, ' ''', ''), ',', '.')
    WHEN regexp_matches(number, '^[1-9][0-9]{0,2}[.,][0-9]{3}$')
        THEN CASE WHEN strpos(number, decimal_mark) = 0 THEN translate(number, '.,', '') END
    WHEN regexp_matches(number, '^([0-9]+|[0-9]*[.,][0-9]{1,2})$')
        OR regexp_matches(number, '^[0-9]*[.,][0-9]+$') AND strpos(number, decimal_mark) > 0
        THEN replace(number, ',', '.')
END;

CREATE OR REPLACE TEMP MACRO amount_of(value, value_type, decimal_mark) AS CASE
    WHEN value_type = 'number' THEN TRY_CAST(value AS DECIMAL(18, 6))
    WHEN replace(frame_of(value), coalesce(currency_of(value), ''), '') IN ('#', '-#', '#-', '(#)') THEN
        TRY_CAST(CASE WHEN regexp_matches(frame_of(value), '[-(]') THEN '-' ELSE '' END
            || digits_of(trim(regexp_replace(plain_of(value), '[^0-9.,'' ]', '', 'g')), decimal_mark) AS DECIMAL(18, 6))
END;

-- 12.5 of '12.5%'.
CREATE OR REPLACE TEMP MACRO percent_of(value) AS CASE
    WHEN regexp_matches(plain_of(value), '^-?[0-9]{1,3}([.][0-9]+|,[0-9]{1,2})? ?(%|percent)$')
    THEN TRY_CAST(replace(regexp_replace(plain_of(value), ' ?(%|percent)$', ''), ',', '.') AS DECIMAL(18, 6))
END;

-- The words of a date: 'jan 31 2024' of 'Jan. 31st, 2024', '1 31 2024' of '1/31/2024'.
CREATE OR REPLACE TEMP MACRO words_of(value) AS
    regexp_replace(regexp_replace(regexp_replace(lower(plain_of(value)),
        '[t ][0-9]{1,2}:[0-9]{2}.*$', ''), '([0-9])(st|nd|rd|th)', '\1'), '[-/., ]+', ' ', 'g');

CREATE OR REPLACE TEMP MACRO month_of(word) AS CASE
    WHEN regexp_matches(word, '^(jan(uary)?|feb(ruary)?|mar(ch)?|apr(il)?|may|june?|july?|aug(ust)?|sept?(ember)?'
        || '|oct(ober)?|nov(ember)?|dec(ember)?)$')
    THEN (strpos('janfebmaraprmayjunjulaugsepoctnovdec', left(word, 3)) + 2) // 3
END;

-- '2024-1-31'; null where it is not sure which number is what.
CREATE OR REPLACE TEMP MACRO ymd_of(words, dots, day_order) AS CASE
    WHEN regexp_matches(words, '^[12][0-9]{3} [0-9]{1,2} [0-9]{1,2}$') THEN replace(words, ' ', '-')
    WHEN regexp_matches(words, '^[a-z]+ [0-9]{1,2} [12][0-9]{3}$')
        THEN split_part(words, ' ', 3) || '-' || month_of(split_part(words, ' ', 1)) || '-' || split_part(words, ' ', 2)
    WHEN regexp_matches(words, '^[0-9]{1,2} [a-z]+ [12][0-9]{3}$')
        THEN split_part(words, ' ', 3) || '-' || month_of(split_part(words, ' ', 2)) || '-' || split_part(words, ' ', 1)
    WHEN regexp_matches(words, '^[0-9]{1,2} (1[3-9]|[23][0-9]) [0-3][0-9]$')
        THEN regexp_replace(words, '^([0-9]+) ([0-9]+) ([0-9]+)$', '20\3-\1-\2')
    WHEN NOT regexp_matches(words, '^[0-9]{1,2} [0-9]{1,2} [12][0-9]{3}$') THEN NULL
    WHEN regexp_matches(words, '^[0-9]+ (1[3-9]|[23][0-9]) ') OR split_part(words, ' ', 1) = split_part(words, ' ', 2)
        OR NOT dots AND day_order = 'MDY' AND regexp_matches(words, '^(0?[0-9]|1[0-2]) ')
        THEN regexp_replace(words, '^([0-9]+) ([0-9]+) ([0-9]+)$', '\3-\1-\2')
    WHEN regexp_matches(words, '^(1[3-9]|[23][0-9]) ') OR NOT dots AND day_order = 'DMY'
        THEN regexp_replace(words, '^([0-9]+) ([0-9]+) ([0-9]+)$', '\3-\2-\1')
END;

CREATE OR REPLACE TEMP MACRO date_of(value, day_order) AS
    TRY_CAST(ymd_of(words_of(value), contains(value, '.'), day_order) AS DATE);
