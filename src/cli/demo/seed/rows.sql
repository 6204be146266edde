-- The rows of the demo's shop: two tills, a stockroom and a back office that sells on account.
--
-- Deterministic: everything is drawn by pg_temp.roll from the settings seed.salt, seed.now and
-- seed.orders. The books close: every entry balances, every paid order has its payment, stock on hand
-- equals what came in less what went out.

CREATE FUNCTION pg_temp.roll(what text, i bigint, sides int) RETURNS int STABLE LANGUAGE sql AS
$$ SELECT ('x' || substr(md5(what || i || current_setting('seed.salt')), 1, 7))::bit(28)::int % sides $$;
CREATE FUNCTION pg_temp.today() RETURNS timestamp STABLE LANGUAGE sql AS
$$ SELECT current_setting('seed.now')::timestamp $$;
CREATE FUNCTION pg_temp.orders() RETURNS int STABLE LANGUAGE sql AS
$$ SELECT current_setting('seed.orders')::int $$;
CREATE FUNCTION pg_temp.token(what text, i bigint) RETURNS text STABLE LANGUAGE sql AS
$$ SELECT md5(what || i || current_setting('seed.salt'))::uuid::text $$;
CREATE FUNCTION pg_temp.words(i bigint, many int) RETURNS text STABLE LANGUAGE sql AS
$$ SELECT string_agg((ARRAY['the','order','was','packed','with','care','and','leaves','on','Monday','customer','asked','for','a',
       'different','colour','please','check','stock','at','harbour','before','noon','delivery','slot','moved','to','afternoon',
       'invoice','sent','by','mail','thanks','again','lamp','table','returned','box','damaged','corner','replaced','free','of',
       'charge','call','back','tomorrow','price','agreed','discount','shown'])[1 + pg_temp.roll('word', i * 100 + w, 51)], ' ' ORDER BY w)
     FROM generate_series(1, many) w $$;

-- Who wrote a row and when is the same almost everywhere: defaults for the time of loading.
DO $$
DECLARE
    col record;
BEGIN
    FOR col IN SELECT c.relname, a.attname FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid
                WHERE c.relnamespace = 'public'::regnamespace AND c.relkind = 'r'
                  AND a.attname IN ('create_uid', 'write_uid', 'create_date', 'write_date')
    LOOP
        EXECUTE format('ALTER TABLE %I ALTER COLUMN %I SET DEFAULT %L', col.relname, col.attname,
            CASE WHEN col.attname LIKE '%_uid' THEN '1' ELSE (pg_temp.today() - interval '40 days')::text END);
    END LOOP;
END $$;

-- ------------------------------------------------------------------ the company and its people

INSERT INTO res_currency (id, name, symbol, iso_numeric, decimal_places, full_name, position, rounding, active) VALUES
    (1, 'EUR', '€', 978, 2, 'Euro', 'after', 0.01, true),
    (2, 'USD', '$', 840, 2, 'United States dollar', 'before', 0.01, false),
    (3, 'GBP', '£', 826, 2, 'Pound sterling', 'before', 0.01, false);

INSERT INTO res_partner (id, company_id, name, complete_name, commercial_partner_id, lang, tz, type, street, zip, city, email,
                         email_normalized, phone, active, is_company, partner_share, customer_rank, supplier_rank, autopost_bills, group_rfq, group_on)
SELECT i, CASE WHEN i <= 8 THEN 1 END, n, n, i, 'en_US', 'Europe/Brussels', 'contact', 1 + pg_temp.roll('no', i, 180) || ' ' || s || ' Street',
       lpad(pg_temp.roll('zip', i, 99999)::text, 5, '0'), (ARRAY['Antwerp','Ghent','Ostend','Bruges','Rotterdam','Lille'])[1 + pg_temp.roll('city', i, 6)],
       e, e, '+32 3 ' || lpad(pg_temp.roll('phone', i, 9999999)::text, 7, '0'), i <> 2, i = 1 OR i % 7 = 0, i > 8, i % 9, CASE WHEN i % 25 = 0 THEN 1 ELSE 0 END,
       'ask', 'default', 'default'
  FROM (SELECT i, s, CASE i WHEN 1 THEN 'Harbour Home & Garden' WHEN 2 THEN 'OdooBot' WHEN 3 THEN 'Mitchell Admin'
                          ELSE f || ' ' || l END AS n, lower(f || '.' || l) || i || '@example.com' AS e
          FROM (SELECT i, (ARRAY['Ada','Bram','Carla','Dries','Elif','Femke','Gita','Hugo','Ines','Joris','Kaat','Lars','Mina','Noor','Otto'])[1 + pg_temp.roll('first', i, 15)] AS f,
                       (ARRAY['Peeters','Janssens','Maes','Jacobs','Mertens','Willems','Claes','Goossens','Wouters','De Smet','Dubois','Lambert'])[1 + pg_temp.roll('last', i, 12)] AS l,
                       (ARRAY['Quay','Mill','Church','Station','Garden','Bridge'])[1 + pg_temp.roll('street', i, 6)] AS s
                  FROM generate_series(1, 8 + GREATEST(40, pg_temp.orders() / 10)) i) x) y;

INSERT INTO res_company (id, name, partner_id, currency_id, sequence, parent_path, email, layout_background, active, fiscalyear_last_day,
                         fiscalyear_last_month, account_price_include, chart_template, anglo_saxon_accounting, horizon_days, inventory_period,
                         cost_method, point_of_sale_update_stock_quantities, point_of_sale_ticket_portal_url_display_mode, security_lead)
VALUES (1, 'Harbour Home & Garden', 1, 1, 10, '1/', 'shop@example.com', 'Blank', true, 31, '12', 'tax_excluded', 'generic_coa', true, 365,
        'manual', 'standard', 'real', 'qr_code', 0);

INSERT INTO res_users (id, company_id, partner_id, active, login, password, share, notification_type, odoobot_state)
SELECT i, 1, i + 1, i > 1, CASE i WHEN 1 THEN '__system__' WHEN 2 THEN 'admin' ELSE 'cashier' || i - 2 END,
       CASE WHEN i > 1 THEN '$pbkdf2-sha512$600000$' || replace(pg_temp.token('salt', i), '-', '') || '$' || replace(pg_temp.token('hash', i), '-', '') END,
       false, 'email', 'disabled'
  FROM generate_series(1, 6) i;

-- ------------------------------------------------------------------ technical tables

INSERT INTO ir_module_module (name, author, state, latest_version, shortdesc, application, license, sequence, module_type)
SELECT m, 'Odoo S.A.', 'installed', '19.0.' || v, jsonb_build_object('en_US', initcap(replace(m, '_', ' '))), m IN ('account', 'point_of_sale', 'sale_management', 'stock'), 'LGPL-3', 100, 'official'
  FROM unnest(ARRAY['base','web','bus','mail','auth_totp','auth_signup','base_setup','portal','http_routing','iap','phone_validation','resource','uom','product',
       'analytic','account','account_payment','payment','barcodes','stock','stock_account','point_of_sale','pos_sale','sales_team','sale','sale_stock',
       'sale_management','purchase','purchase_stock','digest','utm','sms','snailmail','rpc'],
       ARRAY['1.3','1.0','1.0','1.19','1.0','1.0','1.0','1.0','1.0','1.1','1.0','1.1','1.0','1.2','1.2','1.4','2.0','2.0','2.0','1.1','1.1','1.0.2','1.1',
       '1.1','1.2','1.0','1.0','1.2','1.2','1.1','1.1','3.0','2.0','1.0']) AS t(m, v);
INSERT INTO ir_module_module (name, author, state, shortdesc, application, license, sequence, module_type)
SELECT m, 'Odoo S.A.', 'uninstalled', jsonb_build_object('en_US', initcap(m)), true, 'LGPL-3', 100, 'official' FROM unnest(ARRAY['crm','website','mrp','project','hr']) m;

INSERT INTO ir_config_parameter (key, value) VALUES
    ('database.uuid', pg_temp.token('uuid', 1)), ('database.secret', pg_temp.token('secret', 1)),
    ('database.create_date', (pg_temp.today() - interval '40 days')::timestamp(0)::text), ('web.base.url', 'https://shop.example.com'),
    ('mail.restrict.template.rendering', '1'), ('auth_signup.invitation_scope', 'b2c'), ('base.login_cooldown_after', '10');

INSERT INTO ir_sequence (id, number_next, number_increment, padding, company_id, name, code, implementation, prefix, active, use_date_range) VALUES
    (1, 1, 1, 5, 1, 'Sales Order', 'sale.order', 'standard', 'S', true, false),
    (2, 1, 1, 5, 1, 'Harbour Home & Garden Sequence in', NULL, 'standard', 'WH/IN/', true, false),
    (3, 1, 1, 5, 1, 'Harbour Home & Garden Sequence out', NULL, 'standard', 'WH/OUT/', true, false),
    (4, 1, 1, 5, 1, 'Harbour Home & Garden Picking POS', NULL, 'standard', 'WH/POS/', true, false),
    (5, 1, 1, 5, NULL, 'POS Session', 'pos.session', 'standard', '/', true, false),
    (6, 1, 1, 6, 1, 'POS order from config #1', 'pos.order', 'standard', '', true, false),
    (7, 1, 1, 6, 1, 'POS order from config #2', 'pos.order', 'standard', '', true, false),
    (8, 1, 1, 5, 1, 'Group Payments Number Sequence', NULL, 'no_gap', 'GROUP/%(year)s/', true, true);

INSERT INTO ir_act_server (id, type, binding_type, name, model_id, usage, state, code)
SELECT i, 'ir.actions.server', 'action', jsonb_build_object('en_US', n), 1, 'ir_cron', 'code', 'model._run()'
  FROM unnest(ARRAY['Base: Auto-vacuum internal data','Mail: Email Queue Manager','Mail: Fetchmail Service','Procurement: run scheduler',
                    'Account: Post draft entries','Digest Emails']) WITH ORDINALITY AS t(n, i);
INSERT INTO ir_cron (id, ir_actions_server_id, user_id, interval_number, interval_type, priority, failure_count, cron_name, active, nextcall, lastcall)
SELECT id, id, 1, CASE id WHEN 3 THEN 5 ELSE 1 END, CASE id WHEN 2 THEN 'hours' WHEN 3 THEN 'minutes' ELSE 'days' END, 5, 0, name->>'en_US', true,
       pg_temp.today() + interval '1 hour', pg_temp.today() - interval '1 hour' FROM ir_act_server;

INSERT INTO ir_mail_server (name, smtp_host, smtp_port, smtp_authentication, smtp_user, smtp_pass, smtp_encryption, active, sequence)
VALUES ('Outgoing', 'smtp.example.com', 587, 'login', 'shop@example.com', pg_temp.token('smtp', 1), 'starttls', true, 10);

-- ------------------------------------------------------------------ accounts

INSERT INTO account_account (id, account_type, name, code_store, active, reconcile, non_trade)
SELECT i, t, jsonb_build_object('en_US', n), jsonb_build_object('1', c), true, t IN ('asset_receivable', 'liability_payable'), false
  FROM unnest(ARRAY['101401','101501','121000','211000','251000','400000','600000'], ARRAY['Bank','Cash','Account Receivable','Account Payable','Tax Received','Product Sales','Expenses'],
              ARRAY['asset_cash','asset_cash','asset_receivable','liability_payable','liability_current','income','expense']) WITH ORDINALITY AS a(c, n, t, i);
INSERT INTO account_journal (id, default_account_id, sequence, company_id, code, type, invoice_reference_type, invoice_reference_model, name, active) VALUES
    (1, 6, 5, 1, 'INV', 'sale', 'invoice', 'odoo', '{"en_US": "Sales"}', true), (2, 7, 6, 1, 'BILL', 'purchase', 'invoice', 'odoo', '{"en_US": "Purchases"}', true),
    (3, 1, 7, 1, 'BNK1', 'bank', 'invoice', 'odoo', '{"en_US": "Bank"}', true), (4, 2, 8, 1, 'CSH1', 'cash', 'invoice', 'odoo', '{"en_US": "Cash"}', true),
    (5, 6, 9, 1, 'POSS', 'general', 'invoice', 'odoo', '{"en_US": "Point of Sale"}', true), (6, NULL, 10, 1, 'MISC', 'general', 'invoice', 'odoo', '{"en_US": "Miscellaneous Operations"}', true);
INSERT INTO account_tax (id, company_id, sequence, type_tax_use, amount_type, name, amount, active) VALUES
    (1, 1, 1, 'sale', 'percent', '{"en_US": "20%"}', 20, true), (2, 1, 2, 'purchase', 'percent', '{"en_US": "20%"}', 20, true);
INSERT INTO account_cash_rounding (strategy, rounding_method, name, rounding) VALUES ('biggest_tax', 'HALF-UP', '{"en_US": "Rounding to 5 cents"}', 0.05);

-- ------------------------------------------------------------------ products and places

INSERT INTO uom_uom (id, sequence, parent_path, name, relative_factor, factor, active, is_pos_groupable)
VALUES (1, 1, '1/', '{"en_US": "Units"}', 1, 1, true, true), (2, 2, '2/', '{"en_US": "Hours"}', 1, 1, true, false);
INSERT INTO product_category (id, parent_id, name, complete_name, parent_path, packaging_reserve_method, property_cost_method)
SELECT i, CASE WHEN i > 1 THEN 1 END, n, CASE WHEN i > 1 THEN 'Goods / ' ELSE '' END || n, CASE WHEN i > 1 THEN '1/' ELSE '' END || i || '/', 'partial', '{"1": "standard"}'
  FROM unnest(ARRAY['Goods','Furniture','Kitchen','Garden','Lighting','Textile','Services']) WITH ORDINALITY AS t(n, i);

-- Every twentieth product is a service: no stock.
INSERT INTO product_template (id, sequence, categ_id, uom_id, type, service_tracking, default_code, name, description_sale, list_price, volume, weight,
                              sale_ok, purchase_ok, active, sale_delay, tracking, is_storable, available_in_pos, invoice_policy)
SELECT i, i, CASE WHEN i % 20 = 0 THEN 7 ELSE 2 + pg_temp.roll('categ', i, 5) END, 1, CASE WHEN i % 20 = 0 THEN 'service' ELSE 'consu' END, 'no', 'HHG-' || lpad(i::text, 4, '0'),
       jsonb_build_object('en_US', CASE WHEN i % 20 = 0 THEN 'Fitting service ' || i / 20 ELSE
           (ARRAY['Oak','Linen','Copper','Blue','Folding','Large','Small','Woven','Glass','Steel'])[1 + pg_temp.roll('adjective', i, 10)] || ' ' ||
           (ARRAY['chair','table','lamp','pan','rug','shelf','planter','cushion','bench','lantern','bowl','stool'])[1 + pg_temp.roll('noun', i, 12)] || ' no. ' || i END),
       jsonb_build_object('en_US', pg_temp.words(i, 12)), 1 + pg_temp.roll('price', i, 30000) / 100.0, 0, pg_temp.roll('weight', i, 500) / 10.0,
       true, true, true, 0, 'none', i % 20 <> 0, true, 'order'
  FROM generate_series(1, 300) i;
INSERT INTO product_product (id, product_tmpl_id, default_code, barcode, combination_indices, standard_price, volume, weight, active)
SELECT id, id, default_code, '2100' || lpad((id * 7)::text, 9, '0'), '', jsonb_build_object('1', round(list_price * 0.6, 2)), 0, weight, true FROM product_template;

INSERT INTO stock_location (id, location_id, company_id, name, complete_name, usage, parent_path, active, replenish_location) VALUES
    (1, NULL, NULL, 'Vendors', 'Vendors', 'supplier', '1/', true, false), (2, NULL, NULL, 'Customers', 'Customers', 'customer', '2/', true, false),
    (3, NULL, 1, 'WH', 'WH', 'view', '3/', true, false), (4, 3, 1, 'Stock', 'WH/Stock', 'internal', '3/4/', true, true),
    (5, NULL, 1, 'Inventory adjustment', 'Inventory adjustment', 'inventory', '5/', true, false), (6, NULL, NULL, 'Inter-company transit', 'Inter-company transit', 'transit', '6/', false, false);
INSERT INTO stock_picking_type (id, sequence, sequence_id, default_location_src_id, default_location_dest_id, company_id, sequence_code, code, reservation_method,
                                create_backorder, move_type, name, active) VALUES
    (1, 1, 2, 1, 4, 1, 'IN', 'incoming', 'at_confirm', 'ask', 'direct', '{"en_US": "Receipts"}', true),
    (2, 2, 3, 4, 2, 1, 'OUT', 'outgoing', 'at_confirm', 'ask', 'direct', '{"en_US": "Delivery Orders"}', true),
    (3, 3, 4, 4, 2, 1, 'POS', 'outgoing', 'at_confirm', 'ask', 'direct', '{"en_US": "PoS Orders"}', true);

-- ------------------------------------------------------------------ the tills: 30 days, two shops, today's sessions open

INSERT INTO pos_payment_method (id, sequence, journal_id, company_id, payment_method_type, name, is_cash_count, active) VALUES
    (1, 1, 4, 1, 'none', '{"en_US": "Cash"}', true, true), (2, 2, 3, 1, 'none', '{"en_US": "Card"}', false, true);
INSERT INTO pos_config (id, picking_type_id, journal_id, invoice_journal_id, currency_id, order_seq_id, company_id, access_token, name, iface_tax_included, uuid,
                        picking_policy, active, cash_rounding)
SELECT i, 3, 5, 1, 1, 5 + i, 1, left(replace(pg_temp.token('config', i), '-', ''), 16), n, 'total', pg_temp.token('till', i), 'direct', true, false
  FROM unnest(ARRAY['Harbour Quay', 'Mill Street']) WITH ORDINALITY AS t(n, i);
INSERT INTO pos_session (id, config_id, user_id, cash_journal_id, access_token, name, state, cash_register_balance_start, cash_register_balance_end_real, rescue,
                         update_stock_at_closing, start_at, stop_at, create_date, write_date)
SELECT s, 1 + (s - 1) % 2, 3 + s % 4, 4, pg_temp.token('session', s), 'POS/' || lpad(s::text, 5, '0'), CASE WHEN s > 58 THEN 'opened' ELSE 'closed' END, 200, 200, false,
       false, opened, CASE WHEN s <= 58 THEN opened + interval '9 hours' END, opened, opened
  FROM (SELECT s, date_trunc('day', pg_temp.today()) - make_interval(days => 29 - (s - 1) / 2) AS opened FROM generate_series(1, 60) s) t;

-- One line of a basket, whoever sells it; `seller` is 'pos' or 'sale'.
CREATE TEMPORARY TABLE item ON COMMIT DROP AS
SELECT b.*, p.list_price AS price, pt.is_storable AS storable, pt.name->>'en_US' AS product_name, round(p.list_price * b.qty, 2) AS untaxed,
       round(round(p.list_price * b.qty, 2) * 1.2, 2) AS taxed, row_number() OVER (ORDER BY b.seller, b.o, b.k)::int AS n
  FROM (SELECT 'pos' AS seller, o, k, 1 + pg_temp.roll('pos product', o * 10 + k, 300) AS product, 1 + pg_temp.roll('pos qty', o * 10 + k, 3) AS qty
          FROM generate_series(1, pg_temp.orders()) o, LATERAL generate_series(1, 1 + pg_temp.roll('basket', o, 4)) k
        UNION ALL
        SELECT 'sale', o, k, 1 + pg_temp.roll('sale product', o * 10 + k, 300), 1 + pg_temp.roll('sale qty', o * 10 + k, 20)
          FROM generate_series(1, pg_temp.orders() / 10) o, LATERAL generate_series(1, 1 + pg_temp.roll('lines', o, 5)) k) b
  JOIN product_template pt ON pt.id = b.product JOIN LATERAL (SELECT pt.list_price) p ON true;
CREATE INDEX ON item (seller, o);
ANALYZE item;

INSERT INTO pos_order (id, user_id, company_id, partner_id, sequence_number, session_id, config_id, nb_print, sale_journal, access_token, name, state, pos_reference,
                       ticket_code, tracking_number, uuid, source, amount_tax, amount_total, amount_paid, amount_return, currency_rate, is_refund, to_invoice,
                       date_order, create_date, write_date)
SELECT o, s.user_id, 1, CASE WHEN o % 3 = 0 THEN 9 + pg_temp.roll('customer', o, GREATEST(40, pg_temp.orders() / 10)) END, o, s.id, s.config_id, 0, 5, pg_temp.token('order', o),
       c.name || ' - ' || lpad(o::text, 6, '0'), CASE WHEN s.state = 'closed' THEN 'done' ELSE 'paid' END, to_char(s.start_at, 'YYDDD') || '-' || c.id || '-' || lpad(o::text, 6, '0'),
       left(md5('ticket' || o), 5), (o % 100)::text, pg_temp.token('pos', o), 'pos', t.taxed - t.untaxed, t.taxed, t.taxed, 0, 1, false, false, d.at, d.at, d.at
  FROM (SELECT o, SUM(untaxed) AS untaxed, SUM(taxed) AS taxed FROM item WHERE seller = 'pos' GROUP BY o) t
  JOIN pos_session s ON s.id = 1 + (t.o - 1)::bigint * 60 / pg_temp.orders() JOIN pos_config c ON c.id = s.config_id,
  LATERAL (SELECT LEAST(s.start_at + make_interval(secs => 30 * 60 + pg_temp.roll('second', o, 8 * 3600)), pg_temp.today()) AS at) d;
INSERT INTO pos_order_line (company_id, product_id, order_id, name, price_type, full_product_name, uuid, price_unit, qty, price_subtotal, price_subtotal_incl,
                            discount, create_date, write_date)
SELECT 1, i.product, i.o, lpad(i.n::text, 6, '0'), 'original', i.product_name, pg_temp.token('pos line', i.n), i.price, i.qty, i.untaxed, i.taxed, 0, o.date_order, o.date_order
  FROM item i JOIN pos_order o ON o.id = i.o WHERE i.seller = 'pos' ORDER BY i.n;
INSERT INTO pos_payment (pos_order_id, payment_method_id, session_id, company_id, card_type, transaction_id, uuid, amount, is_change, payment_date, create_date, write_date)
SELECT id, m, session_id, 1, CASE m WHEN 2 THEN 'debit' END, CASE m WHEN 2 THEN left(md5('tx' || id), 12) END, pg_temp.token('payment', id), amount_total, false, date_order, date_order, date_order
  FROM pos_order, LATERAL (SELECT 1 + pg_temp.roll('method', id, 2) AS m) x ORDER BY id;

-- ------------------------------------------------------------------ sales on account

INSERT INTO sale_order (id, company_id, partner_id, partner_invoice_id, partner_shipping_id, currency_id, user_id, access_token, name, state, invoice_status, currency_rate,
                        amount_untaxed, amount_tax, amount_total, locked, date_order, create_date, write_date, picking_policy, delivery_status)
SELECT t.o, 1, p, p, p, 1, 2, pg_temp.token('quote', t.o), 'S' || lpad(t.o::text, 5, '0'), st, CASE st WHEN 'sale' THEN 'invoiced' ELSE 'no' END, 1, untaxed, taxed - untaxed, taxed, false,
       at, at, at, 'direct', CASE st WHEN 'sale' THEN 'full' END
  FROM (SELECT o, SUM(untaxed) AS untaxed, SUM(taxed) AS taxed FROM item WHERE seller = 'sale' GROUP BY o) t,
  LATERAL (SELECT 9 + pg_temp.roll('buyer', t.o, GREATEST(40, pg_temp.orders() / 10)) AS p,
                  (ARRAY['sale','sale','sale','sale','sale','sale','sale','draft','draft','cancel'])[1 + pg_temp.roll('state', t.o, 10)] AS st,
                  pg_temp.today() - make_interval(mins => (30 * 1440 * (1 - t.o::numeric / (pg_temp.orders() / 10 + 1)))::int) AS at) d;
INSERT INTO sale_order_line (order_id, sequence, company_id, currency_id, order_partner_id, salesman_id, product_id, product_uom_id, state, invoice_status, name,
                             product_uom_qty, price_unit, discount, price_subtotal, price_total, price_tax, qty_delivered, qty_invoiced, qty_to_invoice, customer_lead, create_date, write_date)
SELECT i.o, 10 * i.k, 1, 1, s.partner_id, 2, i.product, 1, s.state, s.invoice_status, i.product_name, i.qty, i.price, 0, i.untaxed, i.taxed, i.taxed - i.untaxed, f * i.qty, f * i.qty, 0, 0,
       s.date_order, s.date_order
  FROM item i JOIN sale_order s ON s.id = i.o, LATERAL (SELECT CASE s.state WHEN 'sale' THEN 1 ELSE 0 END AS f) x WHERE i.seller = 'sale' ORDER BY i.n;

-- ------------------------------------------------------------------ stock: receipts, then what was sold

CREATE TEMPORARY TABLE transfer ON COMMIT DROP AS
SELECT row_number() OVER (ORDER BY at, kind, o)::int AS id, * FROM (
    SELECT 'in' AS kind, 0 AS o, 1 AS type, 1 AS src, 4 AS dst, NULL::int AS partner, 'P00001' AS origin, pg_temp.today() - interval '35 days' AS at
    UNION ALL SELECT 'pos', id, 3, 4, 2, partner_id, name, date_order FROM pos_order
    UNION ALL SELECT 'sale', id, 2, 4, 2, partner_id, name, date_order FROM sale_order WHERE state = 'sale') t;
INSERT INTO stock_picking (id, location_id, location_dest_id, picking_type_id, partner_id, company_id, user_id, name, origin, move_type, state, priority, is_locked, scheduled_date,
                           date_done, create_date, write_date, pos_session_id, pos_order_id, sale_id)
SELECT t.id, src, dst, type, partner, 1, 2, CASE kind WHEN 'in' THEN 'WH/IN/' WHEN 'pos' THEN 'WH/POS/' ELSE 'WH/OUT/' END || lpad(row_number() OVER (PARTITION BY kind ORDER BY t.id)::text, 5, '0'),
       origin, 'direct', 'done', '0', true, at, at, at, at, p.session_id, p.id, CASE kind WHEN 'sale' THEN t.o END
  FROM transfer t LEFT JOIN pos_order p ON t.kind = 'pos' AND p.id = t.o ORDER BY t.id;
CREATE TEMPORARY TABLE movement ON COMMIT DROP AS
SELECT row_number() OVER (ORDER BY t.id, product, k)::int AS id, t.id AS picking, t.type, t.src, t.dst, t.partner, t.origin, t.at, product, qty::numeric FROM transfer t JOIN (
    SELECT 'in' AS kind, 0 AS o, id AS product, 0 AS k, 4 * pg_temp.orders() + pg_temp.roll('stock', id, 500) AS qty FROM product_template WHERE is_storable
    UNION ALL SELECT seller, o, product, k, qty FROM item WHERE storable) m USING (kind, o);
INSERT INTO stock_move (id, sequence, company_id, product_id, product_uom, location_id, location_dest_id, partner_id, picking_id, picking_type_id, priority, state, origin, procure_method,
                        reference, product_qty, product_uom_qty, quantity, picked, is_inventory, date, create_date, write_date, is_in, is_out)
SELECT m.id, 10, 1, product, 1, src, dst, partner, picking, type, '0', 'done', m.origin, 'make_to_stock', p.name, qty, qty, qty, true, false, at, at, at, type = 1, type > 1
  FROM movement m JOIN stock_picking p ON p.id = m.picking ORDER BY m.id;
INSERT INTO stock_move_line (id, picking_id, move_id, company_id, product_id, product_uom_id, location_id, location_dest_id, state, quantity, quantity_product_uom, picked, date, create_date, write_date)
SELECT id, picking, id, 1, product, 1, src, dst, 'done', qty, qty, true, at, at, at FROM movement ORDER BY id;
INSERT INTO stock_quant (product_id, company_id, location_id, quantity, reserved_quantity, inventory_quantity, inventory_quantity_set, in_date)
SELECT product, CASE l.id WHEN 4 THEN 1 END, l.id, SUM(CASE WHEN dst = l.id THEN qty WHEN src = l.id THEN -qty ELSE 0 END), 0, 0, false, pg_temp.today() - interval '35 days'
  FROM movement, (VALUES (4), (2)) l(id) GROUP BY product, l.id ORDER BY l.id, product;

-- ------------------------------------------------------------------ the books: invoices, their payments, one entry per closed session

CREATE TEMPORARY TABLE entry ON COMMIT DROP AS
SELECT row_number() OVER (ORDER BY at, journal, o)::int AS id, row_number() OVER (PARTITION BY prefix ORDER BY at, o)::int AS number, * FROM (
    SELECT 1 AS journal, 'out_invoice' AS type, id AS o, partner_id AS partner, name AS origin, date_order AS at, 'INV/' || to_char(date_order, 'YYYY') || '/' AS prefix,
           amount_untaxed AS untaxed, amount_tax AS tax, amount_total AS total, pg_temp.roll('paid', id, 10) < 6 AS paid FROM sale_order WHERE state = 'sale'
    UNION ALL
    SELECT 3, 'entry', id, partner_id, name, date_order + interval '2 minutes', 'BNK1/' || to_char(date_order, 'YYYY') || '/', 0, 0, amount_total, true
      FROM sale_order WHERE state = 'sale' AND pg_temp.roll('paid', id, 10) < 6
    UNION ALL
    SELECT 5, 'entry', s.id, NULL, s.name, s.stop_at, 'POSS/' || to_char(s.stop_at, 'YYYY/MM') || '/', SUM(o.amount_total - o.amount_tax), SUM(o.amount_tax), SUM(o.amount_total), true
      FROM pos_session s JOIN pos_order o ON o.session_id = s.id WHERE s.state = 'closed' GROUP BY s.id) e;
INSERT INTO account_move (id, sequence_number, sequence_prefix, name, journal_id, company_id, partner_id, commercial_partner_id, currency_id, invoice_user_id, ref, state, move_type, auto_post,
                          payment_reference, payment_state, invoice_origin, date, invoice_date, invoice_date_due, amount_untaxed, amount_tax, amount_total, amount_residual,
                          amount_total_signed, amount_residual_signed, checked, posted_before, create_date, write_date)
SELECT id, number, prefix, prefix || lpad(number::text, 5, '0'), journal, 1, partner, partner, 1, 2, origin, 'posted', type, 'no', CASE journal WHEN 1 THEN prefix || lpad(number::text, 5, '0') END,
       CASE WHEN journal <> 1 THEN 'not_paid' WHEN paid THEN 'paid' ELSE 'not_paid' END, CASE journal WHEN 1 THEN origin END, at::date, CASE journal WHEN 1 THEN at::date END,
       CASE journal WHEN 1 THEN at::date + 30 END, untaxed, tax, total, CASE WHEN journal = 1 AND NOT paid THEN total ELSE 0 END, total, CASE WHEN journal = 1 AND NOT paid THEN total ELSE 0 END,
       true, true, at, at FROM entry ORDER BY id;
CREATE TEMPORARY TABLE posting ON COMMIT DROP AS
SELECT row_number() OVER (ORDER BY e.id, p.seq)::int AS id, e.id AS move, e.journal, e.partner, e.at, e.origin, e.prefix || lpad(e.number::text, 5, '0') AS move_name, e.o, e.paid, p.*
  FROM entry e, LATERAL (
    SELECT 1 AS seq, 3 AS account, 'payment_term' AS display, 'Receivable' AS label, e.total AS amount, NULL::int AS product, NULL::int AS qty WHERE e.journal = 1
    UNION ALL SELECT 10 + i.k, 6, 'product', i.product_name, -i.untaxed, i.product, i.qty FROM item i WHERE e.journal = 1 AND i.seller = 'sale' AND i.o = e.o
    UNION ALL SELECT 30, 5, 'tax', '20%', -e.tax, NULL, NULL WHERE e.journal = 1
    UNION ALL SELECT 1, 1, 'product', 'Payment ' || e.origin, e.total, NULL, NULL WHERE e.journal = 3
    UNION ALL SELECT 2, 3, 'product', 'Payment ' || e.origin, -e.total, NULL, NULL WHERE e.journal = 3
    UNION ALL SELECT 1, 2, 'product', 'Takings ' || e.origin, e.total, NULL, NULL WHERE e.journal = 5
    UNION ALL SELECT 2, 6, 'product', 'Sales ' || e.origin, -e.untaxed, NULL, NULL WHERE e.journal = 5
    UNION ALL SELECT 3, 5, 'tax', '20%', -e.tax, NULL, NULL WHERE e.journal = 5) p;
CREATE TEMPORARY TABLE settled ON COMMIT DROP AS
SELECT row_number() OVER (ORDER BY d.id)::int AS id, d.id AS debit, c.id AS credit, d.amount, c.at FROM posting d JOIN posting c ON c.o = d.o AND c.journal = 3 AND c.account = 3
 WHERE d.journal = 1 AND d.account = 3;
INSERT INTO account_full_reconcile (id, create_date, write_date) SELECT id, at, at FROM settled;
INSERT INTO account_move_line (id, move_id, journal_id, company_id, company_currency_id, sequence, account_id, currency_id, partner_id, tax_line_id, full_reconcile_id, matching_number, product_id,
                               product_uom_id, move_name, parent_state, ref, name, display_type, date, debit, credit, balance, amount_currency, tax_base_amount, amount_residual,
                               amount_residual_currency, quantity, price_subtotal, reconciled, create_date, write_date)
SELECT p.id, move, journal, 1, 1, seq, account, 1, partner, CASE display WHEN 'tax' THEN 1 END, f.id, f.id::text, product, CASE WHEN product IS NOT NULL THEN 1 END, move_name, 'posted', origin,
       label, display, p.at::date, GREATEST(p.amount, 0), GREATEST(-p.amount, 0), p.amount, p.amount, 0, r.left, r.left, COALESCE(qty, 1), abs(p.amount), account = 3 AND f.id IS NOT NULL, p.at, p.at
  FROM posting p LEFT JOIN settled f ON p.id IN (f.debit, f.credit), LATERAL (SELECT CASE WHEN account = 3 AND f.id IS NULL THEN p.amount ELSE 0 END AS left) r ORDER BY p.id;
INSERT INTO account_partial_reconcile (id, debit_move_id, credit_move_id, full_reconcile_id, debit_currency_id, credit_currency_id, company_id, max_date, amount, debit_amount_currency,
                                       credit_amount_currency, create_date, write_date)
SELECT id, debit, credit, id, 1, 1, 1, at::date, amount, amount, amount, at, at FROM settled;
UPDATE pos_session s SET move_id = e.id FROM entry e WHERE e.journal = 5 AND e.o = s.id;

-- ------------------------------------------------------------------ what people wrote

INSERT INTO mail_message (res_id, record_company_id, author_id, subject, model, message_type, email_from, message_id, reply_to, body, is_internal, date, create_date, write_date)
SELECT res_id, 1, author, subject, model, kind, '"Harbour" <shop@example.com>', '<' || md5(model || res_id || n) || '@shop.example.com>', '"Harbour" <shop@example.com>',
       '<p>' || pg_temp.words(res_id * 7 + n, 15 + pg_temp.roll('length', res_id * 7 + n, 60)) || '</p>', false, at, at, at
  FROM (SELECT id AS res_id, n, 'sale.order' AS model, partner_id AS author, 'Re: ' || name AS subject, 'comment' AS kind, date_order + make_interval(mins => n) AS at
          FROM sale_order, generate_series(1, 3) n
        UNION ALL SELECT id, 1, 'account.move', 3, name, 'notification', create_date FROM account_move WHERE journal_id = 1
        UNION ALL SELECT id, 1, 'product.template', 3, NULL, 'notification', create_date FROM product_template) m;
INSERT INTO mail_mail (mail_message_id, state, body_html, email_to, is_notification, auto_delete)
SELECT id, 'outgoing', body, 'customer' || id || '@example.com', true, true FROM mail_message WHERE model = 'account.move' ORDER BY id DESC LIMIT 5;

-- ------------------------------------------------------------------ sequences stand after what was used

DO $$
DECLARE
    item record;
    top bigint;
BEGIN
    FOR item IN SELECT c.relname, a.attname FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid
                 WHERE c.relnamespace = 'public'::regnamespace AND c.relkind = 'r' AND a.attname IN ('create_uid', 'write_uid', 'create_date', 'write_date')
    LOOP
        EXECUTE format('ALTER TABLE %I ALTER COLUMN %I DROP DEFAULT', item.relname, item.attname);
    END LOOP;
    FOR item IN SELECT relname FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind = 'r' LOOP
        EXECUTE format('SELECT max(id) FROM %I', item.relname) INTO top;
        IF top IS NOT NULL THEN
            PERFORM setval(pg_get_serial_sequence(item.relname, 'id'), top);
        END IF;
    END LOOP;
    FOR item IN SELECT s.id, CASE s.id WHEN 1 THEN (SELECT count(*) FROM sale_order) WHEN 5 THEN (SELECT count(*) FROM pos_session) WHEN 6 THEN (SELECT max(id) FROM pos_order)
                       WHEN 7 THEN (SELECT max(id) FROM pos_order) ELSE (SELECT count(*) FROM stock_picking p JOIN stock_picking_type t ON t.id = p.picking_type_id WHERE t.sequence_id = s.id) END AS used
                  FROM ir_sequence s WHERE s.implementation = 'standard'
    LOOP
        EXECUTE format('CREATE SEQUENCE %I START %s', 'ir_sequence_' || lpad(item.id::text, 3, '0'), item.used + 1);
    END LOOP;
END $$;
