-- Amounts, dates and percentages as printed in documents; null where it is not sure what they mean.
-- The rules are in docs/queries.md. BigQuery: put this before the query, or make the functions lasting ones of a dataset of yours.

-- The text with plain spaces, apostrophes and minus signs.
CREATE TEMP FUNCTION plain_of(value STRING) AS (
    TRIM(TRANSLATE(value, CHR(160) || CHR(8239) || CHR(8217) || CHR(8722), "  '-"))
);

-- What stands around the number: '($#)' of '($1,234.56)'.
CREATE TEMP FUNCTION frame_of(value STRING) AS (
    REPLACE(REGEXP_REPLACE(plain_of(value), r"^([^0-9.,]*)[.,]?[0-9]([0-9.,' ]*[0-9])?", r'\1#'), ' ', '')
);

CREATE TEMP FUNCTION currency_of(value STRING) AS (
    CASE WHEN REGEXP_REPLACE(frame_of(value), r'[-()#]', '')
        IN ('$', 'US$', 'C$', 'CA$', 'A$', '€', '£', '¥', 'USD', 'CAD', 'AUD', 'EUR', 'GBP', 'CHF', 'JPY')
    THEN REGEXP_REPLACE(frame_of(value), r'[-()#]', '') END
);

-- '1234.56' of '1,234.56' and '1.234,56'; null where that is not sure.
CREATE TEMP FUNCTION digits_of(number STRING, decimal_mark STRING) AS (CASE
    WHEN REGEXP_CONTAINS(number, r'^[1-9][0-9]{0,2}((,[0-9]{3})+[.][0-9]+|(,[0-9]{3}){2,})$')
        THEN REPLACE(number, ',', '')
    WHEN REGEXP_CONTAINS(number, r'^[1-9][0-9]{0,2}(([.][0-9]{3})+,[0-9]+|([.][0-9]{3}){2,})$')
        THEN REPLACE(REPLACE(number, '.', ''), ',', '.')
    WHEN REGEXP_CONTAINS(number, r"^[1-9][0-9]{0,2}(( [0-9]{3})+|('[0-9]{3})+)([.,][0-9]+)?$")
        THEN REPLACE(REGEXP_REPLACE(number, r"[ ']", ''), ',', '.')
    WHEN REGEXP_CONTAINS(number, r'^[1-9][0-9]{0,2}[.,][0-9]{3}$')
        THEN CASE WHEN STRPOS(number, decimal_mark) = 0 THEN REGEXP_REPLACE(number, r'[.,]', '') END
    WHEN REGEXP_CONTAINS(number, r'^([0-9]+|[0-9]*[.,][0-9]{1,2})$')
        OR REGEXP_CONTAINS(number, r'^[0-9]*[.,][0-9]+$') AND STRPOS(number, decimal_mark) > 0
        THEN REPLACE(number, ',', '.')
END);

CREATE TEMP FUNCTION amount_of(value STRING, value_type STRING, decimal_mark STRING) AS (CASE
    WHEN value_type = 'number' THEN SAFE_CAST(value AS NUMERIC)
    WHEN REPLACE(frame_of(value), COALESCE(currency_of(value), ''), '') IN ('#', '-#', '#-', '(#)') THEN
        SAFE_CAST(CASE WHEN REGEXP_CONTAINS(frame_of(value), r'[-(]') THEN '-' ELSE '' END
            || digits_of(TRIM(REGEXP_REPLACE(plain_of(value), r"[^0-9.,' ]", '')), decimal_mark) AS NUMERIC)
END);

-- 12.5 of '12.5%'.
CREATE TEMP FUNCTION percent_of(value STRING) AS (CASE
    WHEN REGEXP_CONTAINS(plain_of(value), r'^-?[0-9]{1,3}([.][0-9]+|,[0-9]{1,2})? ?(%|percent)$')
    THEN SAFE_CAST(REPLACE(REGEXP_REPLACE(plain_of(value), r' ?(%|percent)$', ''), ',', '.') AS NUMERIC)
END);

-- The words of a date: 'jan 31 2024' of 'Jan. 31st, 2024', '1 31 2024' of '1/31/2024'.
CREATE TEMP FUNCTION words_of(value STRING) AS (
    REGEXP_REPLACE(REGEXP_REPLACE(REGEXP_REPLACE(LOWER(plain_of(value)),
        r'[t ][0-9]{1,2}:[0-9]{2}.*$', ''), r'([0-9])(st|nd|rd|th)', r'\1'), r'[-/., ]+', ' ')
);

CREATE TEMP FUNCTION month_of(word STRING) AS (CASE
    WHEN REGEXP_CONTAINS(word, r'^(jan(uary)?|feb(ruary)?|mar(ch)?|apr(il)?|may|june?|july?|aug(ust)?|sept?(ember)?'
        || r'|oct(ober)?|nov(ember)?|dec(ember)?)$')
    THEN CAST(DIV((STRPOS('janfebmaraprmayjunjulaugsepoctnovdec', LEFT(word, 3)) + 2), 3) AS STRING)
END);

-- '2024-1-31'; null where it is not sure which number is what.
CREATE TEMP FUNCTION ymd_of(words STRING, dots BOOL, day_order STRING) AS (CASE
    WHEN REGEXP_CONTAINS(words, r'^[12][0-9]{3} [0-9]{1,2} [0-9]{1,2}$') THEN REPLACE(words, ' ', '-')
    WHEN REGEXP_CONTAINS(words, r'^[a-z]+ [0-9]{1,2} [12][0-9]{3}$')
        THEN SPLIT(words, ' ')[OFFSET(2)] || '-' || month_of(SPLIT(words, ' ')[OFFSET(0)])
            || '-' || SPLIT(words, ' ')[OFFSET(1)]
    WHEN REGEXP_CONTAINS(words, r'^[0-9]{1,2} [a-z]+ [12][0-9]{3}$')
        THEN SPLIT(words, ' ')[OFFSET(2)] || '-' || month_of(SPLIT(words, ' ')[OFFSET(1)])
            || '-' || SPLIT(words, ' ')[OFFSET(0)]
    WHEN REGEXP_CONTAINS(words, r'^[0-9]{1,2} (1[3-9]|[23][0-9]) [0-3][0-9]$')
        THEN REGEXP_REPLACE(words, r'^([0-9]+) ([0-9]+) ([0-9]+)$', r'20\3-\1-\2')
    WHEN NOT REGEXP_CONTAINS(words, r'^[0-9]{1,2} [0-9]{1,2} [12][0-9]{3}$') THEN NULL
    WHEN REGEXP_CONTAINS(words, r'^[0-9]+ (1[3-9]|[23][0-9]) ')
        OR SPLIT(words, ' ')[OFFSET(0)] = SPLIT(words, ' ')[OFFSET(1)]
        OR NOT dots AND day_order = 'MDY' AND REGEXP_CONTAINS(words, r'^(0?[0-9]|1[0-2]) ')
        THEN REGEXP_REPLACE(words, r'^([0-9]+) ([0-9]+) ([0-9]+)$', r'\3-\1-\2')
    WHEN REGEXP_CONTAINS(words, r'^(1[3-9]|[23][0-9]) ') OR NOT dots AND day_order = 'DMY'
        THEN REGEXP_REPLACE(words, r'^([0-9]+) ([0-9]+) ([0-9]+)$', r'\3-\2-\1')
END);

CREATE TEMP FUNCTION date_of(value STRING, day_order STRING) AS (
    SAFE_CAST(ymd_of(words_of(value), STRPOS(value, '.') > 0, day_order) AS DATE)
);
