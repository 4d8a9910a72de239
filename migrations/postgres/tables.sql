-- The read models of one namespace on Postgres: the tables of migrations/sqlite, with the same names, columns and rows. Everything here is
-- derived from the log and may be dropped: a schema of another version is not changed, it is built anew from offset 0 beside this one.
-- Times are milliseconds since 1970 (UTC), money is millionths of the currency's unit; the views print both for people.
-- Feature columns of `profiles` are added by the program from features::fields, so that they cannot drift from the code.
-- Texts are in byte order (COLLATE "C"), as in SQLite. Tables whose rows change often leave room for a new version beside the old one.

CREATE TABLE meta (
    key   text COLLATE "C" PRIMARY KEY,
    value text COLLATE "C" NOT NULL
);

-- How far each partition has been applied. Rows and this offset commit together, and only if the offset is the one read before.
CREATE TABLE processing_status (
    topic        text COLLATE "C" NOT NULL,
    partition    bigint NOT NULL,
    incarnation  bigint NOT NULL,
    next_offset  bigint NOT NULL,
    end_offset   bigint NOT NULL DEFAULT 0,
    lag          bigint GENERATED ALWAYS AS (greatest(end_offset - next_offset, 0)) STORED,
    applied_time bigint,
    updated_at   bigint,
    applied      bigint NOT NULL DEFAULT 0,
    skipped      bigint NOT NULL DEFAULT 0,
    unreadable   bigint NOT NULL DEFAULT 0,
    lost         bigint NOT NULL DEFAULT 0,
    PRIMARY KEY (topic, partition)
) WITH (fillfactor = 20, autovacuum_vacuum_threshold = 1000, autovacuum_vacuum_scale_factor = 0);

-- Records of ours that this build could not read; a later build's rebuild may.
CREATE TABLE unreadable_records (
    topic      text COLLATE "C" NOT NULL,
    partition  bigint NOT NULL,
    log_offset bigint NOT NULL,
    error      text COLLATE "C" NOT NULL,
    PRIMARY KEY (topic, partition, log_offset)
);

-- By months of `timestamp`, made as events come (events_2024_03), so that old ones go at once. Numbers rise in the order of applying.
CREATE SEQUENCE event_ids;
CREATE TABLE events (
    tenant_id       text COLLATE "C" NOT NULL,
    event_id        bigint NOT NULL DEFAULT nextval('event_ids'),
    user_id         text COLLATE "C",
    anonymous_id    text COLLATE "C",
    event_name      text COLLATE "C" NOT NULL,
    type            text COLLATE "C" NOT NULL,
    properties      text COLLATE "C",
    context         text COLLATE "C",
    timestamp       bigint NOT NULL,
    received_at     bigint NOT NULL,
    -- What the client calls the session (context.sessionId or properties.session_id); sessions of ours are in `profiles`.
    session_id      text COLLATE "C",
    message_id      text COLLATE "C" NOT NULL,
    source          text COLLATE "C" NOT NULL,
    historical      boolean NOT NULL,
    log_partition   bigint NOT NULL,
    log_offset      bigint NOT NULL,
    origin_partition bigint NOT NULL,
    origin_offset   bigint NOT NULL
) PARTITION BY RANGE (timestamp);
CREATE INDEX events_by_user ON events (user_id, timestamp);
CREATE INDEX events_by_message ON events (message_id);
CREATE INDEX events_by_anonymous ON events (anonymous_id) WHERE user_id IS NULL;

-- Who was there on which day (UTC): the exact basis of "actives".
CREATE TABLE daily_actives (
    tenant_id text COLLATE "C" NOT NULL,
    day       text COLLATE "C" NOT NULL,
    subject   text COLLATE "C" NOT NULL,
    PRIMARY KEY (tenant_id, day, subject)
);

CREATE TABLE daily_events (
    tenant_id  text COLLATE "C" NOT NULL,
    day        text COLLATE "C" NOT NULL,
    event_name text COLLATE "C" NOT NULL,
    events     bigint NOT NULL,
    PRIMARY KEY (tenant_id, day, event_name)
) WITH (fillfactor = 70);

CREATE TABLE daily_totals (
    tenant_id text COLLATE "C" NOT NULL,
    day       text COLLATE "C" NOT NULL,
    events    bigint NOT NULL DEFAULT 0,
    actives   bigint NOT NULL DEFAULT 0,
    PRIMARY KEY (tenant_id, day)
) WITH (fillfactor = 70);

-- Only rows that were new are counted: those that were there are not in the transition table.
CREATE FUNCTION count_actives() RETURNS trigger LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
BEGIN
    INSERT INTO daily_totals (tenant_id, day, actives)
    SELECT tenant_id, day, count(*) FROM fresh GROUP BY tenant_id, day ORDER BY tenant_id, day
    ON CONFLICT (tenant_id, day) DO UPDATE SET actives = daily_totals.actives + excluded.actives;
    RETURN NULL;
END
$$;
CREATE TRIGGER daily_actives_counted AFTER INSERT ON daily_actives
    REFERENCING NEW TABLE AS fresh FOR EACH STATEMENT EXECUTE FUNCTION count_actives();

-- Order and refund events as the topology's features.orders names them.
CREATE TABLE daily_revenue (
    tenant_id      text COLLATE "C" NOT NULL,
    day            text COLLATE "C" NOT NULL,
    currency       text COLLATE "C" NOT NULL,
    orders         bigint NOT NULL,
    revenue_micros bigint NOT NULL,
    refunds_micros bigint NOT NULL,
    PRIMARY KEY (tenant_id, day, currency)
) WITH (fillfactor = 70);

-- The latest record of each person. Feature columns, scores among them, are added by the program. Windows are as of `as_of`.
CREATE TABLE profiles (
    tenant_id       text COLLATE "C" NOT NULL,
    subject         text COLLATE "C" NOT NULL,
    user_id         text COLLATE "C",
    anonymous_id    text COLLATE "C",
    log_offset      bigint NOT NULL,
    as_of           bigint NOT NULL,
    fold_version    bigint NOT NULL,
    traits          text COLLATE "C",
    consent         text COLLATE "C",
    segments        text COLLATE "C",
    event_counts    text COLLATE "C",
    currency_totals text COLLATE "C",
    funnel_steps    text COLLATE "C",
    score_reasons   text COLLATE "C",
    UNIQUE (tenant_id, subject)
) WITH (fillfactor = 50, autovacuum_vacuum_scale_factor = 0.1);

CREATE TABLE membership (
    tenant_id text COLLATE "C" NOT NULL,
    segment   text COLLATE "C" NOT NULL,
    subject   text COLLATE "C" NOT NULL,
    since     bigint NOT NULL,
    digest    text COLLATE "C" NOT NULL,
    cause     text COLLATE "C",
    PRIMARY KEY (tenant_id, segment, subject)
);

CREATE TABLE membership_history (
    tenant_id     text COLLATE "C" NOT NULL,
    history_id    bigint GENERATED BY DEFAULT AS IDENTITY,
    segment       text COLLATE "C" NOT NULL,
    subject       text COLLATE "C" NOT NULL,
    entered       boolean NOT NULL,
    at            bigint NOT NULL,
    digest        text COLLATE "C" NOT NULL,
    cause         text COLLATE "C",
    log_partition bigint NOT NULL,
    log_offset    bigint NOT NULL,
    -- Where the event that caused it was more than 24 hours old on receipt: true of the person, but nothing was started by it.
    late          boolean NOT NULL DEFAULT false
);

CREATE TABLE segment_daily (
    tenant_id text COLLATE "C" NOT NULL,
    segment   text COLLATE "C" NOT NULL,
    day       text COLLATE "C" NOT NULL,
    entered   bigint NOT NULL,
    "left"    bigint NOT NULL,
    PRIMARY KEY (tenant_id, segment, day)
) WITH (fillfactor = 70);

CREATE TABLE identities (
    tenant_id    text COLLATE "C" NOT NULL,
    anonymous_id text COLLATE "C" NOT NULL,
    ordinal      bigint NOT NULL,
    user_id      text COLLATE "C" NOT NULL,
    since        bigint NOT NULL,
    PRIMARY KEY (tenant_id, anonymous_id, ordinal)
);
CREATE INDEX identities_by_user ON identities (tenant_id, user_id);

CREATE TABLE dead_letters (
    tenant_id          text COLLATE "C",
    dead_letter_id     bigint GENERATED BY DEFAULT AS IDENTITY PRIMARY KEY,
    subject            text COLLATE "C",
    topic              text COLLATE "C" NOT NULL,
    origin_incarnation bigint NOT NULL,
    origin_partition   bigint NOT NULL,
    origin_offset      bigint NOT NULL,
    stage              text COLLATE "C" NOT NULL,
    reason             text COLLATE "C" NOT NULL,
    detail             text COLLATE "C" NOT NULL,
    message_id         text COLLATE "C",
    at                 bigint NOT NULL,
    body               text COLLATE "C",
    log_partition      bigint NOT NULL,
    log_offset         bigint NOT NULL
);
CREATE INDEX dead_letters_by_message ON dead_letters (message_id);

-- Every inbound record that was not applied, by its place in the stage's input. Those that were have a row in `events`.
CREATE TABLE outcomes (
    stage         text COLLATE "C" NOT NULL,
    log_partition bigint NOT NULL,
    log_offset    bigint NOT NULL,
    message_id    text COLLATE "C" NOT NULL,
    kind          text COLLATE "C" NOT NULL,
    reason        text COLLATE "C" NOT NULL,
    at            bigint NOT NULL,
    -- Whose record it was; NULL for outcomes written before they said so.
    tenant_id     text COLLATE "C",
    PRIMARY KEY (stage, log_partition, log_offset)
);
CREATE INDEX outcomes_by_message ON outcomes (message_id);

CREATE TABLE outcome_totals (
    stage   text COLLATE "C" NOT NULL,
    kind    text COLLATE "C" NOT NULL,
    reason  text COLLATE "C" NOT NULL,
    records bigint NOT NULL,
    PRIMARY KEY (stage, kind, reason)
) WITH (fillfactor = 20, autovacuum_vacuum_threshold = 1000, autovacuum_vacuum_scale_factor = 0);

-- Which stretch of a stage's input the totals cover; `gaps` counts offsets between two batches that no tally covers.
CREATE TABLE outcome_coverage (
    stage       text COLLATE "C" NOT NULL,
    partition   bigint NOT NULL,
    from_offset bigint NOT NULL,
    to_offset   bigint NOT NULL,
    records     bigint NOT NULL,
    gaps        bigint NOT NULL DEFAULT 0,
    PRIMARY KEY (stage, partition)
) WITH (fillfactor = 20, autovacuum_vacuum_threshold = 1000, autovacuum_vacuum_scale_factor = 0);

-- Pairs of sessions that a late event made one. `v_sessions` and `profiles` show them joined; this is for whoever acted on them before.
CREATE TABLE session_corrections (
    tenant_id     text COLLATE "C" NOT NULL,
    correction_id bigint GENERATED BY DEFAULT AS IDENTITY,
    subject       text COLLATE "C" NOT NULL,
    first_start   bigint NOT NULL,
    second_start  bigint NOT NULL,
    at            bigint NOT NULL,
    cause         text COLLATE "C" NOT NULL,
    log_partition bigint NOT NULL,
    log_offset    bigint NOT NULL
);

-- Workflows: what `journal` says, folded. Read them through the views workflow_*, which join and name everything. Ids of our own are places
-- in the log (offset << 12 | partition).

CREATE TABLE wf_definitions (
    definition_ref bigint PRIMARY KEY,
    workflow       text COLLATE "C" NOT NULL,
    digest         text COLLATE "C" NOT NULL,
    -- Whether new entries go to it, anybody's.
    is_active      boolean NOT NULL DEFAULT false
);

-- Which definition new entries go to, said for each tenant.
CREATE TABLE wf_active (
    -- Empty: everyone's.
    tenant_id      text COLLATE "C" NOT NULL,
    workflow       text COLLATE "C" NOT NULL,
    definition_ref bigint NOT NULL,
    PRIMARY KEY (tenant_id, workflow)
);

-- Every time that a version of a workflow was brought into force, by whom, and until when new entries went to it.
CREATE TABLE wf_publications (
    -- Its place in `definitions`.
    publication_ref bigint PRIMARY KEY,
    -- Empty: everyone's.
    tenant_id       text COLLATE "C" NOT NULL,
    workflow        text COLLATE "C" NOT NULL,
    digest          text COLLATE "C" NOT NULL,
    about           text COLLATE "C" NOT NULL,
    -- Nothing where it was said before there was a place for it.
    published_at    bigint,
    published_by    text COLLATE "C",
    -- When it was retired, or another version took its place.
    retired_at      bigint,
    retired_by      text COLLATE "C",
    is_over         boolean NOT NULL DEFAULT false
);
CREATE INDEX wf_publications_of ON wf_publications (workflow, tenant_id);

CREATE TABLE wf_runs (
    run_ref        bigint PRIMARY KEY,
    tenant_id      text COLLATE "C" NOT NULL,
    run_id         text COLLATE "C" NOT NULL,
    definition_ref bigint NOT NULL,
    subject        text COLLATE "C" NOT NULL,
    run_key        text COLLATE "C",
    cause          text COLLATE "C" NOT NULL,
    parent_subject text COLLATE "C",
    parent_run     text COLLATE "C",
    started_at     bigint NOT NULL,
    ended_at       bigint,
    -- running | waiting | paused, then how it ended: completed | goal | failed | cancelled | terminated | merged
    status         text COLLATE "C" NOT NULL,
    outcome        text COLLATE "C",
    -- Where it is, or where it ended.
    nodes          text COLLATE "C",
    since          bigint NOT NULL,
    updated_at     bigint NOT NULL,
    paused_at      bigint,
    paused_by      text COLLATE "C",
    pause_reason   text COLLATE "C",
    goal           text COLLATE "C",
    goal_at        bigint,
    visits         bigint NOT NULL,
    facts          bigint NOT NULL
) WITH (fillfactor = 60, autovacuum_vacuum_scale_factor = 0.1);
CREATE INDEX wf_runs_by_id ON wf_runs (run_id);
CREATE INDEX wf_runs_by_subject ON wf_runs (subject);
CREATE INDEX wf_runs_paused ON wf_runs (run_ref) WHERE paused_at IS NOT NULL;

-- One row per step that is open: where runs are, what they do there, and until when.
CREATE TABLE wf_steps (
    run_ref    bigint NOT NULL,
    visit      bigint NOT NULL,
    node       text COLLATE "C" NOT NULL,
    -- arriving | delay | wait | ask | effect | approval | start | ready
    doing      text COLLATE "C" NOT NULL,
    since      bigint NOT NULL,
    until      bigint,
    awaits     text COLLATE "C",
    effect_ref bigint,
    PRIMARY KEY (run_ref, visit)
) WITH (fillfactor = 70, autovacuum_vacuum_scale_factor = 0.1);
CREATE INDEX wf_steps_due ON wf_steps (until) WHERE until IS NOT NULL;

CREATE TABLE wf_effects (
    effect_ref    bigint PRIMARY KEY,
    run_ref       bigint NOT NULL,
    visit         bigint NOT NULL,
    node          text COLLATE "C" NOT NULL,
    -- The idempotency key.
    effect_id     text COLLATE "C" NOT NULL,
    performer     text COLLATE "C" NOT NULL,
    target        text COLLATE "C" NOT NULL,
    purpose       text COLLATE "C",
    -- requested | started | retrying | unknown | done | failed | refused | cancelled | settled
    status        text COLLATE "C" NOT NULL,
    attempts      bigint NOT NULL,
    requested_at  bigint NOT NULL,
    started_at    bigint,
    finished_at   bigint,
    next_try_at   bigint,
    failures      bigint NOT NULL,
    failed_at     bigint,
    last_error    text COLLATE "C",
    category      text COLLATE "C",
    -- Why no permit was given: a stable name, and words for people.
    refusal_code  text COLLATE "C",
    refusal       text COLLATE "C",
    executor      text COLLATE "C",
    -- How often an attempt is known to have been performed.
    performed     bigint NOT NULL,
    -- Taken as done without an answer.
    assumed       boolean NOT NULL,
    settled       text COLLATE "C",
    result        text COLLATE "C"
) WITH (fillfactor = 60, autovacuum_vacuum_scale_factor = 0.1);
CREATE INDEX wf_effects_by_run ON wf_effects (run_ref);
CREATE INDEX wf_effects_by_id ON wf_effects (effect_id);

-- What channel effects have beside the others.
CREATE TABLE wf_messages (
    effect_ref   bigint PRIMARY KEY,
    address      text COLLATE "C",
    template     text COLLATE "C",
    permit_until bigint,
    sent_at      bigint
) WITH (fillfactor = 70);

CREATE TABLE wf_approvals (
    run_ref      bigint NOT NULL,
    visit        bigint NOT NULL,
    node         text COLLATE "C" NOT NULL,
    who          text COLLATE "C" NOT NULL,
    shows        text COLLATE "C",
    requested_at bigint NOT NULL,
    deadline     bigint NOT NULL,
    -- open | approved | rejected | cancelled
    status       text COLLATE "C" NOT NULL,
    decided_at   bigint,
    decided_by   text COLLATE "C",
    comment      text COLLATE "C",
    late_clicks  bigint NOT NULL,
    -- What a question is recognised by, and whom the link was for by which it was decided.
    shown        text COLLATE "C",
    decided_link text COLLATE "C",
    PRIMARY KEY (run_ref, visit)
);
CREATE INDEX wf_approvals_open ON wf_approvals (deadline) WHERE status = 'open';

-- Who was assigned to which arm of which split, and whether the run reached a goal after that.
CREATE TABLE wf_arms (
    run_ref        bigint NOT NULL,
    node           text COLLATE "C" NOT NULL,
    tenant_id      text COLLATE "C" NOT NULL,
    definition_ref bigint NOT NULL,
    arm            text COLLATE "C" NOT NULL,
    assigned_at    bigint NOT NULL,
    goal           text COLLATE "C",
    converted_at   bigint,
    PRIMARY KEY (run_ref, node)
);

-- Arrivals and departures per node and UTC day. A loop's node counts every round.
CREATE TABLE wf_funnel (
    tenant_id      text COLLATE "C" NOT NULL,
    definition_ref bigint NOT NULL,
    day            text COLLATE "C" NOT NULL,
    node           text COLLATE "C" NOT NULL,
    entered        bigint NOT NULL,
    "left"         bigint NOT NULL,
    PRIMARY KEY (tenant_id, definition_ref, day, node)
) WITH (fillfactor = 50);

CREATE TABLE wf_ways (
    tenant_id      text COLLATE "C" NOT NULL,
    definition_ref bigint NOT NULL,
    day            text COLLATE "C" NOT NULL,
    node           text COLLATE "C" NOT NULL,
    way            text COLLATE "C" NOT NULL,
    runs           bigint NOT NULL,
    PRIMARY KEY (tenant_id, definition_ref, day, node, way)
) WITH (fillfactor = 50);

-- Failed attempts per day, all of them: an effect's own row has its last.
CREATE TABLE wf_errors (
    tenant_id      text COLLATE "C" NOT NULL,
    definition_ref bigint NOT NULL,
    day            text COLLATE "C" NOT NULL,
    node           text COLLATE "C" NOT NULL,
    target         text COLLATE "C" NOT NULL,
    category       text COLLATE "C" NOT NULL,
    errors         bigint NOT NULL,
    PRIMARY KEY (tenant_id, definition_ref, day, node, target, category)
) WITH (fillfactor = 50);

-- Who would have entered a workflow and did not, and why.
CREATE TABLE wf_skips (
    skip_ref  bigint PRIMARY KEY,
    tenant_id text COLLATE "C" NOT NULL,
    subject   text COLLATE "C" NOT NULL,
    workflow  text COLLATE "C" NOT NULL,
    reason    text COLLATE "C" NOT NULL,
    cause     text COLLATE "C" NOT NULL,
    at        bigint NOT NULL
);
CREATE INDEX wf_skips_by_subject ON wf_skips (subject);

-- What someone should be told: effects that were given up and will fail for everyone until somebody acts.
CREATE TABLE wf_notifications (
    notification_ref bigint PRIMARY KEY,
    run_ref          bigint NOT NULL,
    node             text COLLATE "C" NOT NULL,
    at               bigint NOT NULL,
    category         text COLLATE "C" NOT NULL,
    severity         text COLLATE "C" NOT NULL,
    text             text COLLATE "C" NOT NULL
);

-- Addresses of people that nothing is sent to, by a hash: bounces, complaints, an operator's word.
CREATE TABLE wf_suppressions (
    tenant_id text COLLATE "C" NOT NULL,
    subject   text COLLATE "C" NOT NULL,
    channel   text COLLATE "C" NOT NULL,
    address   text COLLATE "C" NOT NULL,
    reason    text COLLATE "C" NOT NULL,
    since     bigint NOT NULL,
    until     bigint,
    -- Who or what had it suppressed: an operator, an import, the message that came back.
    said_by   text COLLATE "C",
    PRIMARY KEY (tenant_id, subject, channel, address)
);
CREATE INDEX wf_suppressions_by_address ON wf_suppressions (tenant_id, address);

-- How far the time of each partition of `journal` is: the now of its timers.
CREATE TABLE wf_time (
    partition bigint PRIMARY KEY,
    time      bigint NOT NULL
) WITH (fillfactor = 20, autovacuum_vacuum_threshold = 1000, autovacuum_vacuum_scale_factor = 0);
