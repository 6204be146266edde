-- Kind, name and definition of every object of the database that a dump holds. Members of extensions come with their
-- extension and are left out; so are NOT NULL constraints, which only some versions keep as constraints (columns say it).
WITH own AS (
    SELECT oid, nspname FROM pg_namespace WHERE nspname !~ '^pg_' AND nspname <> 'information_schema'
), member AS (
    SELECT classid, objid FROM pg_depend WHERE deptype = 'e'
), relation AS (
    SELECT c.* FROM pg_class c JOIN own n ON n.oid = c.relnamespace
     WHERE NOT EXISTS (SELECT FROM member m WHERE m.classid = 'pg_class'::regclass AND m.objid = c.oid)
), routine AS (
    SELECT p.* FROM pg_proc p JOIN own n ON n.oid = p.pronamespace
     WHERE NOT EXISTS (SELECT FROM member m WHERE m.classid = 'pg_proc'::regclass AND m.objid = p.oid)
)
SELECT 'schema', quote_ident(nspname), '' FROM own
UNION ALL
SELECT 'extension', extname::text, extnamespace::regnamespace::text FROM pg_extension
UNION ALL
SELECT CASE relkind WHEN 'r' THEN 'table' WHEN 'p' THEN 'partitioned table' WHEN 'f' THEN 'foreign table'
                    WHEN 'v' THEN 'view' WHEN 'm' THEN 'materialized view' WHEN 'S' THEN 'sequence' WHEN 'c' THEN 'type' END,
       oid::regclass::text,
       CASE WHEN relkind IN ('v', 'm') THEN md5(pg_get_viewdef(oid))
            ELSE concat_ws(' ', relpersistence, CASE WHEN relrowsecurity THEN 'row security' END,
                           CASE WHEN relforcerowsecurity THEN 'forced' END, pg_get_expr(relpartbound, oid),
                           (SELECT string_agg(inhparent::regclass::text, ',' ORDER BY inhseqno)
                              FROM pg_inherits WHERE inhrelid = relation.oid)) END
  FROM relation WHERE relkind IN ('r', 'p', 'f', 'v', 'm', 'S', 'c')
UNION ALL
SELECT 'column', concat(r.oid::regclass, '.', quote_ident(a.attname)),
       concat_ws(' ', format_type(a.atttypid, a.atttypmod), CASE WHEN a.attnotnull THEN 'not null' END,
                 nullif(a.attidentity, ''), nullif(a.attgenerated, ''), pg_get_expr(d.adbin, d.adrelid),
                 CASE WHEN a.attcollation <> t.typcollation THEN a.attcollation::regcollation::text END)
  FROM relation r
  JOIN pg_attribute a ON a.attrelid = r.oid AND a.attnum > 0 AND NOT a.attisdropped
  JOIN pg_type t ON t.oid = a.atttypid
  LEFT JOIN pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
 WHERE r.relkind IN ('r', 'p', 'f', 'm', 'c')
UNION ALL
SELECT 'index', i.indexrelid::regclass::text,
       concat_ws(' ', pg_get_indexdef(i.indexrelid), CASE WHEN NOT i.indisvalid THEN 'INVALID' END,
                 CASE WHEN i.indisclustered THEN 'clustered' END, CASE WHEN i.indisreplident THEN 'identity' END)
  FROM pg_index i JOIN relation r ON r.oid = i.indrelid
UNION ALL
SELECT 'constraint', coalesce(nullif(conrelid, 0)::regclass::text, contypid::regtype::text) || '.' || quote_ident(conname),
       concat_ws(' ', pg_get_constraintdef(oid), CASE WHEN NOT convalidated THEN 'NOT VALIDATED' END)
  FROM pg_constraint
 WHERE contype IN ('c', 'f', 'p', 'u', 'x') AND connamespace IN (SELECT oid FROM own)
   AND (conrelid = 0 OR conrelid IN (SELECT oid FROM relation))
   AND NOT EXISTS (SELECT FROM member m WHERE m.classid = 'pg_type'::regclass AND m.objid = contypid)
UNION ALL
SELECT 'trigger', concat(tgrelid::regclass, '.', quote_ident(tgname)), concat_ws(' ', tgenabled, pg_get_triggerdef(pg_trigger.oid))
  FROM pg_trigger WHERE NOT tgisinternal AND tgrelid IN (SELECT oid FROM relation)
UNION ALL
SELECT 'rule', concat(ev_class::regclass, '.', quote_ident(rulename)), concat_ws(' ', ev_enabled, md5(pg_get_ruledef(pg_rewrite.oid)))
  FROM pg_rewrite WHERE rulename <> '_RETURN' AND ev_class IN (SELECT oid FROM relation)
UNION ALL
SELECT 'policy', concat(polrelid::regclass, '.', quote_ident(polname)),
       concat_ws(' ', polcmd, polpermissive, pg_get_expr(polqual, polrelid), pg_get_expr(polwithcheck, polrelid))
  FROM pg_policy WHERE polrelid IN (SELECT oid FROM relation)
UNION ALL
SELECT 'function', r.oid::regprocedure::text,
       concat_ws(' ', r.prokind, r.provolatile, CASE WHEN r.prosecdef THEN 'security definer' END,
                 CASE WHEN r.proisstrict THEN 'strict' END, r.proparallel, l.lanname, r.prorettype::regtype,
                 md5(r.prosrc), array_to_string(r.proconfig, ','))
  FROM routine r JOIN pg_language l ON l.oid = r.prolang
UNION ALL
SELECT 'type', t.oid::regtype::text,
       concat_ws(' ', t.typtype, format_type(nullif(t.typbasetype, 0), t.typtypmod),
                 (SELECT string_agg(quote_literal(e.enumlabel), ',' ORDER BY e.enumsortorder)
                    FROM pg_enum e WHERE e.enumtypid = t.oid))
  FROM pg_type t JOIN own n ON n.oid = t.typnamespace
 WHERE t.typtype IN ('d', 'e', 'r')
   AND NOT EXISTS (SELECT FROM member m WHERE m.classid = 'pg_type'::regclass AND m.objid = t.oid)
UNION ALL
SELECT 'statistics', quote_ident(nspname) || '.' || quote_ident(stxname), md5(pg_get_statisticsobjdef(s.oid))
  FROM pg_statistic_ext s JOIN own n ON n.oid = s.stxnamespace
UNION ALL
SELECT 'event trigger', evtname::text, concat_ws(' ', evtevent, evtenabled) FROM pg_event_trigger
UNION ALL
SELECT 'large objects', 'all', count(*)::text FROM pg_largeobject_metadata
