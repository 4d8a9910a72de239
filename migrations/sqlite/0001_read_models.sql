-- The read models of one namespace. Everything here is derived from the log and may be deleted: it is rebuilt from offset 0.
-- Times are milliseconds since 1970 (UTC), money is millionths of the currency's unit; the views (views.sql) print both for people.
-- Feature columns of `profiles` are added by the program from features::fields, so that they cannot drift from the code.

CREATE TABLE meta (
    key   TEXT PRIMARY KEY,
    value TEXT NOT NULL
) WITHOUT ROWID;

-- How far each partition has been applied. Rows and this offset commit together, and only if the offset is the one read before.
CREATE TABLE processing_status (
    topic        TEXT NOT NULL,
    partition    INTEGER NOT NULL,
    incarnation  INTEGER NOT NULL,
    next_offset  INTEGER NOT NULL,
    end_offset   INTEGER NOT NULL DEFAULT 0,
    lag          INTEGER AS (max(end_offset - next_offset, 0)) VIRTUAL,
    applied_time INTEGER,
    updated_at   INTEGER,
    applied      INTEGER NOT NULL DEFAULT 0,
    skipped      INTEGER NOT NULL DEFAULT 0,
    unreadable   INTEGER NOT NULL DEFAULT 0,
    lost         INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (topic, partition)
) WITHOUT ROWID;

-- Records of ours that this build could not read; a later build's rebuild may.
CREATE TABLE unreadable_records (
    topic     TEXT NOT NULL,
    partition INTEGER NOT NULL,
    log_offset INTEGER NOT NULL,
    error     TEXT NOT NULL,
    PRIMARY KEY (topic, partition, log_offset)
) WITHOUT ROWID;

-- `bucket` leads every index: ids rise with time, so an insert only ever touches the newest bucket's few pages, however large the
-- table is, while a query by user or message alone skips from bucket to bucket (SQLite's skip-scan, see sqlite_stat1 below).
CREATE TABLE events (
    tenant_id       TEXT NOT NULL,
    event_id        INTEGER PRIMARY KEY,
    user_id         TEXT,
    anonymous_id    TEXT,
    event_name      TEXT NOT NULL,
    type            TEXT NOT NULL,
    properties      TEXT,
    context         TEXT,
    timestamp       INTEGER NOT NULL,
    received_at     INTEGER NOT NULL,
    -- What the client calls the session (context.sessionId or properties.session_id); sessions of ours are in `profiles`.
    session_id      TEXT,
    message_id      TEXT NOT NULL,
    source          TEXT NOT NULL,
    historical      INTEGER NOT NULL,
    log_partition   INTEGER NOT NULL,
    log_offset      INTEGER NOT NULL,
    origin_partition INTEGER NOT NULL,
    origin_offset   INTEGER NOT NULL,
    bucket          INTEGER AS (event_id >> 15) VIRTUAL
);
CREATE INDEX events_by_user ON events (bucket, user_id, timestamp);
CREATE INDEX events_by_message ON events (bucket, message_id);
CREATE INDEX events_by_anonymous ON events (bucket, anonymous_id) WHERE user_id IS NULL;

-- Who was there on which day (UTC): the exact basis of "actives".
CREATE TABLE daily_actives (
    tenant_id TEXT NOT NULL,
    day       TEXT NOT NULL,
    subject   TEXT NOT NULL,
    PRIMARY KEY (tenant_id, day, subject)
) WITHOUT ROWID;

CREATE TABLE daily_events (
    tenant_id  TEXT NOT NULL,
    day        TEXT NOT NULL,
    event_name TEXT NOT NULL,
    events     INTEGER NOT NULL,
    PRIMARY KEY (tenant_id, day, event_name)
) WITHOUT ROWID;

CREATE TABLE daily_totals (
    tenant_id TEXT NOT NULL,
    day       TEXT NOT NULL,
    events    INTEGER NOT NULL DEFAULT 0,
    actives   INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (tenant_id, day)
) WITHOUT ROWID;

CREATE TRIGGER daily_actives_counted AFTER INSERT ON daily_actives BEGIN
    INSERT INTO daily_totals (tenant_id, day, actives) VALUES (new.tenant_id, new.day, 1)
    ON CONFLICT DO UPDATE SET actives = actives + 1;
END;

-- Order and refund events as the topology's features.orders names them.
CREATE TABLE daily_revenue (
    tenant_id      TEXT NOT NULL,
    day            TEXT NOT NULL,
    currency       TEXT NOT NULL,
    orders         INTEGER NOT NULL,
    revenue_micros INTEGER NOT NULL,
    refunds_micros INTEGER NOT NULL,
    PRIMARY KEY (tenant_id, day, currency)
) WITHOUT ROWID;

-- The latest record of each person. Feature columns, scores among them, are added by the program. Windows are as of `as_of`.
CREATE TABLE profiles (
    tenant_id       TEXT NOT NULL,
    subject         TEXT NOT NULL,
    user_id         TEXT,
    anonymous_id    TEXT,
    log_offset      INTEGER NOT NULL,
    as_of           INTEGER NOT NULL,
    fold_version    INTEGER NOT NULL,
    traits          TEXT,
    consent         TEXT,
    segments        TEXT,
    event_counts    TEXT,
    currency_totals TEXT,
    funnel_steps    TEXT,
    score_reasons   TEXT,
    UNIQUE (tenant_id, subject)
);

CREATE TABLE membership (
    tenant_id TEXT NOT NULL,
    segment   TEXT NOT NULL,
    subject   TEXT NOT NULL,
    since     INTEGER NOT NULL,
    digest    TEXT NOT NULL,
    cause     TEXT,
    PRIMARY KEY (tenant_id, segment, subject)
) WITHOUT ROWID;

CREATE TABLE membership_history (
    tenant_id TEXT NOT NULL,
    history_id INTEGER PRIMARY KEY,
    segment   TEXT NOT NULL,
    subject   TEXT NOT NULL,
    entered   INTEGER NOT NULL,
    at        INTEGER NOT NULL,
    digest    TEXT NOT NULL,
    cause     TEXT,
    log_partition INTEGER NOT NULL,
    log_offset    INTEGER NOT NULL
);

CREATE TABLE segment_daily (
    tenant_id TEXT NOT NULL,
    segment   TEXT NOT NULL,
    day       TEXT NOT NULL,
    entered   INTEGER NOT NULL,
    left      INTEGER NOT NULL,
    PRIMARY KEY (tenant_id, segment, day)
) WITHOUT ROWID;

CREATE TABLE identities (
    tenant_id    TEXT NOT NULL,
    anonymous_id TEXT NOT NULL,
    ordinal      INTEGER NOT NULL,
    user_id      TEXT NOT NULL,
    since        INTEGER NOT NULL,
    PRIMARY KEY (tenant_id, anonymous_id, ordinal)
) WITHOUT ROWID;
CREATE INDEX identities_by_user ON identities (tenant_id, user_id);

CREATE TABLE dead_letters (
    tenant_id          TEXT,
    dead_letter_id     INTEGER PRIMARY KEY,
    subject            TEXT,
    topic              TEXT NOT NULL,
    origin_incarnation INTEGER NOT NULL,
    origin_partition   INTEGER NOT NULL,
    origin_offset      INTEGER NOT NULL,
    stage              TEXT NOT NULL,
    reason             TEXT NOT NULL,
    detail             TEXT NOT NULL,
    message_id         TEXT,
    at                 INTEGER NOT NULL,
    body               TEXT,
    log_partition      INTEGER NOT NULL,
    log_offset         INTEGER NOT NULL
);
CREATE INDEX dead_letters_by_message ON dead_letters (message_id);

-- Every inbound record that was not applied, by its place in the stage's input. Those that were have a row in `events`.
CREATE TABLE outcomes (
    stage         TEXT NOT NULL,
    log_partition INTEGER NOT NULL,
    log_offset    INTEGER NOT NULL,
    message_id    TEXT NOT NULL,
    kind          TEXT NOT NULL,
    reason        TEXT NOT NULL,
    at            INTEGER NOT NULL,
    PRIMARY KEY (stage, log_partition, log_offset)
) WITHOUT ROWID;
CREATE INDEX outcomes_by_message ON outcomes (message_id);

CREATE TABLE outcome_totals (
    stage   TEXT NOT NULL,
    kind    TEXT NOT NULL,
    reason  TEXT NOT NULL,
    records INTEGER NOT NULL,
    PRIMARY KEY (stage, kind, reason)
) WITHOUT ROWID;

-- Which stretch of a stage's input the totals cover; `gaps` counts offsets between two batches that no tally covers.
CREATE TABLE outcome_coverage (
    stage       TEXT NOT NULL,
    partition   INTEGER NOT NULL,
    from_offset INTEGER NOT NULL,
    to_offset   INTEGER NOT NULL,
    records     INTEGER NOT NULL,
    gaps        INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (stage, partition)
) WITHOUT ROWID;

-- The planner's statistics are written here once and never measured: they say "buckets are large and few", which is what makes a query
-- by user_id alone use events_by_user.
ANALYZE;
DELETE FROM sqlite_stat1;
INSERT INTO sqlite_stat1 (tbl, idx, stat) VALUES
    ('events', 'events_by_user', '100000000 32768 20 1'),
    ('events', 'events_by_message', '100000000 32768 1'),
    ('events', 'events_by_anonymous', '100000000 32768 20');
