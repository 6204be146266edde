-- One live sale, number current_setting('lifeboat.sale'): everything is derived from that number.
WITH sale AS (
    SELECT current_setting('lifeboat.sale')::bigint AS n, now() AT TIME ZONE 'UTC' AS at
), till AS (
    SELECT sale.*, s.id AS session, s.config_id AS config, s.user_id, c.name AS shop, c.order_seq_id
      FROM sale, pos_session s JOIN pos_config c ON c.id = s.config_id
     WHERE s.state = 'opened' ORDER BY s.id OFFSET current_setting('lifeboat.sale')::bigint % 2 LIMIT 1
), basket AS (
    SELECT till.*, k, p.id AS product, t.name->>'en_US' AS product_name, t.is_storable, t.list_price AS price, q.qty,
           round(t.list_price * q.qty, 2) AS untaxed, round(round(t.list_price * q.qty, 2) * 1.2, 2) AS taxed
      FROM till, LATERAL generate_series(1, 1 + n % 3) k,
           LATERAL (SELECT 1 + (n + k) % 2 AS qty) q,
           product_product p JOIN product_template t ON t.id = p.product_tmpl_id
     WHERE p.id = 1 + (n * 7919 + k * 104729) % 300
), pos AS (
    INSERT INTO pos_order (user_id, company_id, sequence_number, session_id, config_id, nb_print, sale_journal, access_token, name, state,
            pos_reference, ticket_code, tracking_number, uuid, source, amount_tax, amount_total, amount_paid, amount_return, currency_rate,
            is_refund, to_invoice, date_order, create_uid, write_uid, create_date, write_date)
    SELECT user_id, 1, n, session, config, 0, 5, md5('live access' || n)::uuid,
           shop || ' - ' || lpad(nextval(('ir_sequence_' || lpad(order_seq_id::text, 3, '0'))::regclass)::text, 6, '0'), 'paid',
           'LIVE-' || lpad(n::text, 8, '0'), left(md5('ticket' || n), 5), (n % 100)::text, md5('live' || n)::uuid, 'pos',
           sum(taxed - untaxed), sum(taxed), sum(taxed), 0, 1, false, false, at, user_id, user_id, at, at
      FROM basket GROUP BY user_id, n, session, config, shop, order_seq_id, at
    RETURNING id, name, amount_total
), lines AS (
    INSERT INTO pos_order_line (company_id, product_id, order_id, name, price_type, full_product_name, uuid, price_unit, qty, price_subtotal,
            price_subtotal_incl, discount, create_uid, write_uid, create_date, write_date)
    SELECT 1, product, pos.id, lpad(n::text, 8, '0') || '-' || k, 'original', product_name, md5('live line' || n || '-' || k)::uuid, price, qty,
           untaxed, taxed, 0, user_id, user_id, at, at
      FROM basket, pos
), paid AS (
    INSERT INTO pos_payment (pos_order_id, payment_method_id, session_id, company_id, uuid, amount, is_change, payment_date,
            create_uid, write_uid, create_date, write_date)
    SELECT pos.id, 1 + n % 2, session, 1, md5('live payment' || n)::uuid, pos.amount_total, false, at, user_id, user_id, at, at
      FROM till, pos
), picking AS (
    INSERT INTO stock_picking (location_id, location_dest_id, picking_type_id, company_id, user_id, name, origin, move_type, state, priority,
            is_locked, scheduled_date, date_done, pos_session_id, pos_order_id, create_uid, write_uid, create_date, write_date)
    SELECT 4, 2, 3, 1, user_id, 'WH/POS/' || lpad(nextval('ir_sequence_004')::text, 5, '0'), pos.name, 'direct', 'done', '0', true, at, at,
           session, pos.id, user_id, user_id, at, at
      FROM till, pos WHERE EXISTS (SELECT 1 FROM basket WHERE is_storable)
    RETURNING id, name, origin
), move AS (
    INSERT INTO stock_move (sequence, company_id, product_id, product_uom, location_id, location_dest_id, picking_id, picking_type_id, priority,
            state, origin, procure_method, reference, product_qty, product_uom_qty, quantity, picked, is_inventory, date, is_in, is_out,
            create_uid, write_uid, create_date, write_date)
    SELECT 10, 1, product, 1, 4, 2, picking.id, 3, '0', 'done', picking.origin, 'make_to_stock', picking.name, qty, qty, qty, true, false, at,
           false, true, user_id, user_id, at, at
      FROM basket, picking WHERE is_storable
    RETURNING id, picking_id, product_id, quantity, date, create_uid
), move_line AS (
    INSERT INTO stock_move_line (picking_id, move_id, company_id, product_id, product_uom_id, location_id, location_dest_id, state, quantity,
            quantity_product_uom, picked, date, create_uid, write_uid, create_date, write_date)
    SELECT picking_id, id, 1, product_id, 1, 4, 2, 'done', quantity, quantity, true, date, create_uid, create_uid, date, date FROM move
), quant AS (
    UPDATE stock_quant q SET quantity = q.quantity + m.delta, write_date = m.at
      FROM (SELECT product, location, sum(qty * sign) AS delta, max(at) AS at
              FROM basket, (VALUES (4, -1), (2, 1)) l(location, sign) WHERE is_storable GROUP BY product, location) m
     WHERE q.product_id = m.product AND q.location_id = m.location
), message AS (
    INSERT INTO mail_message (res_id, record_company_id, author_id, subject, model, message_type, email_from, message_id, body, is_internal,
            date, create_uid, write_uid, create_date, write_date)
    SELECT pos.id, 1, 3, pos.name, 'pos.order', 'notification', '"Harbour" <shop@example.com>', '<live.' || n || '@shop.example.com>',
           '<p>Sold at ' || shop || '</p>', false, at, user_id, user_id, at, at
      FROM till, pos
)
SELECT name FROM pos;
