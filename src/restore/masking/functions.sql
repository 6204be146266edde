-- The masks. They live in pg_temp and go with the session; lifeboat.masking_key holds the key. Nested digests, so that the
-- length of what is hashed cannot be extended. Empty and absent values stay what they are.
CREATE FUNCTION pg_temp.mask_digest(kind text, value text) RETURNS text LANGUAGE sql STABLE AS $$
    SELECT encode(sha256(convert_to(current_setting('lifeboat.masking_key'), 'UTF8')
                         || sha256(convert_to(current_setting('lifeboat.masking_key') || kind || value, 'UTF8'))), 'hex')
$$;
CREATE FUNCTION pg_temp.mask_hash(value text) RETURNS text LANGUAGE sql STABLE AS $$
    SELECT CASE WHEN value = '' THEN '' ELSE left(pg_temp.mask_digest('hash', value), 32) END
$$;
CREATE FUNCTION pg_temp.mask_email(value text) RETURNS text LANGUAGE sql STABLE AS $$
    SELECT CASE WHEN value = '' THEN ''
                ELSE 'u' || left(pg_temp.mask_digest('email', lower(btrim(value))), 16) || '@example.invalid' END
$$;
CREATE FUNCTION pg_temp.mask_name(value text) RETURNS text LANGUAGE sql STABLE AS $$
    SELECT CASE WHEN value = '' THEN '' ELSE (
        SELECT (ARRAY['Ada','Alma','Amir','Anton','Aria','Bela','Bruno','Clara','Dario','Edda','Elias','Emil','Enzo','Fatma',
                      'Finn','Freya','Gita','Hanna','Hugo','Ida','Ilya','Ines','Iris','Ivo','Jana','Jonas','Kaia','Karim',
                      'Lena','Leo','Lina','Luca'])[1 + get_byte(d.bytes, 0) % 32] || ' '
            || (ARRAY['Abel','Adler','Arndt','Bach','Baum','Berg','Brandt','Busch','Dahl','Ebert','Engel','Falk','Fink',
                      'Frank','Graf','Haas','Hahn','Heim','Horn','Jung','Kern','Koch','Kolb','Lang','Lenz','Lind','Marx',
                      'Moll','Nagel','Roth','Stern','Vogt'])[1 + get_byte(d.bytes, 1) % 32] || ' '
            || encode(substr(d.bytes, 3, 4), 'hex')
          FROM (SELECT decode(pg_temp.mask_digest('name', value), 'hex')) d (bytes)) END
$$;
-- Each digit becomes another one, which depends on the whole value and on the place.
CREATE FUNCTION pg_temp.mask_digits(value text) RETURNS text LANGUAGE sql STABLE AS $$
    SELECT CASE WHEN value !~ '[0-9]' THEN value ELSE (
        SELECT string_agg(CASE WHEN c.c ~ '^[0-9]$'
                               THEN ((c.c::int + 1 + get_byte(d.bytes, ((c.i - 1) % 32)::int) % 9) % 10)::text
                               ELSE c.c END, '' ORDER BY c.i)
          FROM regexp_split_to_table(value, '') WITH ORDINALITY c (c, i),
               (SELECT decode(pg_temp.mask_digest('digits', value), 'hex')) d (bytes)) END
$$;
CREATE FUNCTION pg_temp.mask_json_value(kind text, value jsonb) RETURNS jsonb LANGUAGE sql STABLE AS $$
    SELECT CASE WHEN jsonb_typeof(value) <> 'string' THEN 'null'
                WHEN kind = 'hash' THEN to_jsonb(pg_temp.mask_hash(value #>> '{}'))
                WHEN kind = 'fake-email' THEN to_jsonb(pg_temp.mask_email(value #>> '{}'))
                WHEN kind = 'fake-name' THEN to_jsonb(pg_temp.mask_name(value #>> '{}'))
                WHEN kind = 'scramble-digits' THEN to_jsonb(pg_temp.mask_digits(value #>> '{}')) END
$$;
-- Translated fields: the value of each language. What is neither text nor empty is dropped, never kept.
CREATE FUNCTION pg_temp.mask_json(kind text, value jsonb) RETURNS jsonb LANGUAGE sql STABLE AS $$
    SELECT CASE jsonb_typeof(value)
           WHEN 'object' THEN (SELECT coalesce(jsonb_object_agg(key, pg_temp.mask_json_value(kind, v)), '{}')
                                 FROM jsonb_each(value) e (key, v))
           ELSE pg_temp.mask_json_value(kind, value) END
$$;
