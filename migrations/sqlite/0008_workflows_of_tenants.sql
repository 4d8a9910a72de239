-- A workflow of the same name may be several tenants' own: which definition new entries go to is said for each of them. `is_active` of
-- wf_definitions is whether anybody's do.
CREATE TABLE wf_active (
    -- Empty: everyone's.
    tenant_id      TEXT NOT NULL,
    workflow       TEXT NOT NULL,
    definition_ref INTEGER NOT NULL,
    PRIMARY KEY (tenant_id, workflow)
) WITHOUT ROWID;

INSERT INTO wf_active SELECT '', workflow, definition_ref FROM wf_definitions WHERE is_active;
