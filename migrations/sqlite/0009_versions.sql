-- Every time that a version of a workflow was brought into force, by whom, and until when new entries went to it.
CREATE TABLE wf_publications (
    -- Its place in `definitions`.
    publication_ref INTEGER PRIMARY KEY,
    -- Empty: everyone's.
    tenant_id       TEXT NOT NULL,
    workflow        TEXT NOT NULL,
    digest          TEXT NOT NULL,
    about           TEXT NOT NULL,
    -- Nothing where it was said before there was a place for it.
    published_at    INTEGER,
    published_by    TEXT,
    -- When it was retired, or another version took its place.
    retired_at      INTEGER,
    retired_by      TEXT,
    is_over         INTEGER NOT NULL DEFAULT 0
);
CREATE INDEX wf_publications_of ON wf_publications (workflow, tenant_id);
