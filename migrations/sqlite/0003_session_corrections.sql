-- Pairs of sessions that a late event made one. `v_sessions` and `profiles` show them joined; this is for whoever acted on them before.
CREATE TABLE session_corrections (
    tenant_id     TEXT NOT NULL,
    correction_id INTEGER PRIMARY KEY,
    subject       TEXT NOT NULL,
    first_start   INTEGER NOT NULL,
    second_start  INTEGER NOT NULL,
    at            INTEGER NOT NULL,
    cause         TEXT NOT NULL,
    log_partition INTEGER NOT NULL,
    log_offset    INTEGER NOT NULL
);
