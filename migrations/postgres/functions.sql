-- SQLite's functions as far as the views and docs/sql.md use them, so that one query reads both databases. They are in the schema that
-- people query and are found there because it is in their search_path; each runs as whoever calls it.
-- What cannot be read (no JSON, no time) is NULL, so that one odd record fails nobody's query.

-- Seconds since 1970 as text; beyond the years 1 to 9999 nothing.
CREATE FUNCTION strftime(format text, seconds double precision, unit text) RETURNS text LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT CASE WHEN unit = 'unixepoch' AND seconds >= -62135596800 AND seconds < 253402300800 THEN
        to_char(to_timestamp(seconds) AT TIME ZONE 'UTC',
                replace(replace(replace(replace(replace(replace(replace(replace(replace(format, 'T', '"T"'), 'Z', '"Z"'),
                '%Y', 'YYYY'), '%m', 'MM'), '%d', 'DD'), '%H', 'HH24'), '%M', 'MI'), '%S', 'SS'), '%f', 'SS.MS'))
    END
$$;

CREATE FUNCTION datetime(seconds double precision, unit text) RETURNS text LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT CASE WHEN unit = 'unixepoch' AND seconds >= -62135596800 AND seconds < 253402300800 THEN
        to_char(to_timestamp(floor(seconds)) AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI:SS')
    END
$$;

-- A time as text, moved: datetime('2024-03-01 10:00:00', '-1 day').
CREATE FUNCTION datetime(moment text, modifier text) RETURNS text LANGUAGE sql STABLE PARALLEL SAFE AS $$
    SELECT to_char(moment::timestamp + modifier::interval, 'YYYY-MM-DD HH24:MI:SS')
$$;

CREATE FUNCTION date(seconds double precision, unit text) RETURNS text LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT CASE WHEN unit = 'unixepoch' AND seconds >= -62135596800 AND seconds < 253402300800 THEN
        to_char(to_timestamp(floor(seconds)) AT TIME ZONE 'UTC', 'YYYY-MM-DD')
    END
$$;

CREATE FUNCTION date(moment text) RETURNS text LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT substr(moment, 1, 10)
$$;

CREATE FUNCTION unixepoch(modifier text) RETURNS double precision LANGUAGE sql STABLE PARALLEL SAFE AS $$
    SELECT CASE WHEN modifier = 'subsec' THEN extract(epoch FROM now())::double precision END
$$;

CREATE FUNCTION round(number double precision, digits integer) RETURNS double precision LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT CASE WHEN abs(number) < 1e15 THEN round(number::numeric, digits)::double precision ELSE number END
$$;

CREATE FUNCTION iif(condition boolean, yes text, no text) RETURNS text LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT CASE WHEN condition THEN yes ELSE no END
$$;

CREATE FUNCTION instr(whole text, part text) RETURNS integer LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT strpos(whole, part)
$$;

CREATE FUNCTION group_concat_step(whole text, part text, separator text) RETURNS text LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT CASE WHEN part IS NULL THEN whole WHEN whole IS NULL THEN part ELSE whole || separator || part END
$$;
CREATE AGGREGATE group_concat(text, text) (SFUNC = group_concat_step, STYPE = text);

-- A member of a JSON text: '$.a.b' or a plain name. Always text: numbers want a CAST, truths are 'true' and 'false'.
CREATE FUNCTION json_extract(document text, path text) RETURNS text LANGUAGE plpgsql IMMUTABLE STRICT AS $$
BEGIN
    IF path LIKE '$.%' THEN
        RETURN document::json #>> string_to_array(substr(path, 3), '.');
    END IF;
    RETURN document::json ->> path;
EXCEPTION WHEN OTHERS THEN
    RETURN NULL;
END
$$;
CREATE OPERATOR ->> (LEFTARG = text, RIGHTARG = text, FUNCTION = json_extract);

CREATE FUNCTION json_valid(document text) RETURNS boolean LANGUAGE plpgsql IMMUTABLE STRICT AS $$
BEGIN
    PERFORM document::json;
    RETURN true;
EXCEPTION WHEN OTHERS THEN
    RETURN false;
END
$$;

-- The elements of a JSON array, or of the array that is a document's member.
CREATE FUNCTION json_each(document text) RETURNS TABLE (key bigint, value text) LANGUAGE plpgsql IMMUTABLE STRICT ROWS 3 AS $$
BEGIN
    RETURN QUERY SELECT one.place - 1, CASE json_typeof(one.element) WHEN 'string' THEN one.element #>> '{}' ELSE one.element::text END
        FROM json_array_elements(document::json) WITH ORDINALITY AS one (element, place);
EXCEPTION WHEN OTHERS THEN
    RETURN;
END
$$;

CREATE FUNCTION json_each(document text, path text) RETURNS TABLE (key bigint, value text) LANGUAGE plpgsql IMMUTABLE STRICT ROWS 3 AS $$
BEGIN
    RETURN QUERY SELECT one.place - 1, CASE json_typeof(one.element) WHEN 'string' THEN one.element #>> '{}' ELSE one.element::text END
        FROM json_array_elements(document::json #> string_to_array(substr(path, 3), '.')) WITH ORDINALITY AS one (element, place);
EXCEPTION WHEN OTHERS THEN
    RETURN;
END
$$;
