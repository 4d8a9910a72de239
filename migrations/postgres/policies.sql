-- Who sees which rows. The owner of the tables, who is the user of postgres.url, sees all; anybody else needs a right to read and sees what
-- a policy shows: rows of the tenants that `analysts` names for the login. `session_user` is who logged in, whatever they set afterwards.

CREATE TABLE analysts (
    role      text COLLATE "C" NOT NULL,
    tenant_id text COLLATE "C" NOT NULL,
    PRIMARY KEY (role, tenant_id)
);
ALTER TABLE analysts ENABLE ROW LEVEL SECURITY;
CREATE POLICY own ON analysts FOR SELECT USING (role = session_user);

DO $$
DECLARE
    name text;
    mine text := 'ARRAY(SELECT a.tenant_id FROM analysts AS a WHERE a.role = session_user)';
BEGIN
    -- Rows that name their tenant.
    FOREACH name IN ARRAY ARRAY['events', 'daily_actives', 'daily_events', 'daily_totals', 'daily_revenue', 'profiles', 'membership',
        'membership_history', 'segment_daily', 'identities', 'dead_letters', 'outcomes', 'session_corrections', 'wf_runs', 'wf_arms', 'wf_funnel',
        'wf_ways', 'wf_errors', 'wf_skips', 'wf_suppressions']
    LOOP
        EXECUTE format('ALTER TABLE %I ENABLE ROW LEVEL SECURITY', name);
        EXECUTE format('CREATE POLICY of_tenant ON %I FOR SELECT USING (tenant_id = ANY (%s))', name, mine);
    END LOOP;
    -- Workflows that are everyone's, or the tenant's own.
    FOREACH name IN ARRAY ARRAY['wf_active', 'wf_publications'] LOOP
        EXECUTE format('ALTER TABLE %I ENABLE ROW LEVEL SECURITY', name);
        EXECUTE format('CREATE POLICY of_tenant ON %I FOR SELECT USING (tenant_id = %L OR tenant_id = ANY (%s))', name, '', mine);
    END LOOP;
    -- What belongs to a run is whose the run is; the subqueries are under the policies of their own tables.
    FOREACH name IN ARRAY ARRAY['wf_steps', 'wf_effects', 'wf_approvals', 'wf_notifications'] LOOP
        EXECUTE format('ALTER TABLE %I ENABLE ROW LEVEL SECURITY', name);
        EXECUTE format('CREATE POLICY of_run ON %I FOR SELECT USING (EXISTS (SELECT 1 FROM wf_runs AS r WHERE r.run_ref = %I.run_ref))', name, name);
    END LOOP;
END
$$;

ALTER TABLE wf_messages ENABLE ROW LEVEL SECURITY;
CREATE POLICY of_effect ON wf_messages FOR SELECT USING (EXISTS (SELECT 1 FROM wf_effects AS e WHERE e.effect_ref = wf_messages.effect_ref));

-- A definition is seen by whom it serves: who was ever in one of its runs (each has a row in the funnel), or is to come into one.
ALTER TABLE wf_definitions ENABLE ROW LEVEL SECURITY;
CREATE POLICY of_use ON wf_definitions FOR SELECT USING (
    definition_ref IN (SELECT f.definition_ref FROM wf_funnel AS f)
    OR definition_ref IN (SELECT a.definition_ref FROM wf_active AS a)
    OR (workflow, digest) IN (SELECT p.workflow, p.digest FROM wf_publications AS p)
);

-- Of no tenant, and not for analysts: no policy shows a row to anybody but the owner.
ALTER TABLE meta ENABLE ROW LEVEL SECURITY;
ALTER TABLE unreadable_records ENABLE ROW LEVEL SECURITY;
ALTER TABLE outcome_totals ENABLE ROW LEVEL SECURITY;
ALTER TABLE outcome_coverage ENABLE ROW LEVEL SECURITY;
