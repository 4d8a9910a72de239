-- Views for people: times as text, money in units, names as the design document has them. Made anew whenever this file changes.

DROP VIEW IF EXISTS v_daily;
CREATE VIEW v_daily AS
SELECT t.tenant_id, t.day, t.events, t.actives
FROM daily_totals t;
