-- The first schema. Times are unix nanoseconds. Words that repeat are small integers: state, verdict and settled index the
-- tuples of core/resources.py; type, environment, instance and channel point into their tables.

-- == facts =========================================================================================================
CREATE TABLE environment (id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE);
CREATE TABLE channel (id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE);

-- Single numbers about the whole file, such as the arrival of the newest event.
CREATE TABLE mark (name TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID;

-- All tasks with the same (service, name). `ends_alone`: a task of it was seen to finish by itself, so it is no loop.
CREATE TABLE type (
    id INTEGER PRIMARY KEY,
    service TEXT NOT NULL,
    name TEXT NOT NULL,
    ends_alone INTEGER NOT NULL DEFAULT 0,
    UNIQUE (service, name)
);

-- One OS process of a service. `channel` is who first spoke for it. `state`: alive, gone, unreachable.
-- `behind_since`: when `backlog` left 0 (NULL: it is 0); `lowest`, `lowest_at`: the fewest it was since, and when.
-- `journal` is its folder while we watch its lock; `adopted`: everything it wrote is here. `records`: the numbers of its records
-- that are here, as core/records.py packs them. `lived_at`: the last moment at which it itself is known to have lived.
-- `lock_lies`: its journal's lock was free while it was connected, so locks of that file system say nothing.
CREATE TABLE instance (
    no INTEGER PRIMARY KEY,
    id TEXT NOT NULL UNIQUE,
    service TEXT NOT NULL,
    environment TEXT NOT NULL,
    release TEXT, host TEXT, pid INTEGER, python TEXT, client TEXT,
    started_at INTEGER,
    channel INTEGER NOT NULL,
    proven INTEGER NOT NULL DEFAULT 0,
    first_heard_at INTEGER NOT NULL,
    last_heard_at INTEGER NOT NULL,
    said_at INTEGER NOT NULL DEFAULT 0, -- when it said its latest word, by our clock: what waited on its way is no news
    travel INTEGER,                     -- the least that a word of it took to get here, with what its skew leaves out (ns)
    back_at INTEGER NOT NULL DEFAULT 0, -- when it spoke again after it had been overdue, by our clock
    last_seq INTEGER NOT NULL DEFAULT 0,
    backlog INTEGER NOT NULL DEFAULT 0,
    behind_since INTEGER, lowest INTEGER, lowest_at INTEGER,
    dropped INTEGER NOT NULL DEFAULT 0,
    open INTEGER NOT NULL DEFAULT 0,
    loop_lag_ms REAL,
    skew INTEGER NOT NULL DEFAULT 0,
    state TEXT NOT NULL DEFAULT 'alive' CHECK (state IN ('alive', 'gone', 'unreachable')),
    reason TEXT,
    ended_at INTEGER,
    adopted INTEGER NOT NULL DEFAULT 0,
    journal TEXT,
    records BLOB,
    lived_at INTEGER NOT NULL DEFAULT 0,
    lock_lies INTEGER NOT NULL DEFAULT 0
);
CREATE INDEX instance_live ON instance (state) WHERE state != 'gone';
-- Who came after an instance on its host.
CREATE INDEX instance_place ON instance (service, host, first_heard_at);

-- The narrow row: columns are the view that pages and the detector search by; `facts` is the truth they are folded from
-- (store/packed.py: it does not say again what `type` and `environment` say).
-- `check_at`: when the detector must look again (NULL: never). `flags` are bits over core/resources.FLAGS, then JUDGED, ORDER.
CREATE TABLE task (
    id BLOB PRIMARY KEY,
    type INTEGER NOT NULL,
    environment INTEGER NOT NULL,
    channel INTEGER NOT NULL,
    state INTEGER NOT NULL,
    verdict INTEGER,
    settled INTEGER,
    loose INTEGER NOT NULL DEFAULT 0,
    flags INTEGER NOT NULL DEFAULT 0,
    attempt INTEGER NOT NULL,
    instance INTEGER,
    began_at INTEGER NOT NULL,
    started_at INTEGER,
    ended_at INTEGER,
    due_at INTEGER,
    check_at INTEGER,
    key TEXT,
    incident INTEGER,
    facts BLOB NOT NULL
) WITHOUT ROWID;
-- Read backwards by nearly everybody, and yet not DESC: what grows at its front end leaves every page half empty (60 bytes a task
-- instead of 35).
CREATE INDEX task_newest ON task (began_at, id);
CREATE INDEX task_check ON task (check_at) WHERE check_at IS NOT NULL;
-- Everything that is counted over what is open stands in it: a count reads the index alone, and no row.
CREATE INDEX task_open ON task (instance, verdict, state, environment, type, flags, began_at) WHERE state < 3;
-- 1024: store/codes.py WITH_PROCESS. A loop lives again when its instance does.
CREATE INDEX task_loop ON task (instance) WHERE flags & 1024;
-- `loose` is always 1 in it, and takes no byte: with it a count reads the index alone.
CREATE INDEX task_loose ON task (loose, began_at) WHERE loose = 1;
-- Failures that nobody has looked at; 4 is `failed`. They dismiss themselves in the end.
CREATE INDEX task_failed ON task (ended_at, id) WHERE loose = 1 AND state = 4;
CREATE INDEX task_incident ON task (incident, loose, settled) WHERE incident IS NOT NULL;
-- Loose ends whose row does not say what is wrong: the verdict fell without a good end, only the judgement tells. 4 is `failed`.
CREATE INDEX task_unsure ON task (incident) WHERE loose = 1 AND verdict IS NULL AND state != 4;

-- Arguments, results, errors and stacks, apart from the narrow row. slot: '<attempt>/<instance no or ->/<event type>'.
CREATE TABLE payload (task BLOB NOT NULL, slot TEXT NOT NULL, data BLOB NOT NULL, PRIMARY KEY (task, slot)) WITHOUT ROWID;
CREATE TABLE external (task BLOB PRIMARY KEY, text TEXT NOT NULL) WITHOUT ROWID;
CREATE INDEX external_text ON external (text);
CREATE TABLE child (parent BLOB NOT NULL, task BLOB NOT NULL, PRIMARY KEY (parent, task)) WITHOUT ROWID;
CREATE INDEX child_of ON child (task);

-- Append-only: what the daemon or a person concluded, each with its reason in words.
CREATE TABLE judgement (
    task BLOB NOT NULL,
    n INTEGER NOT NULL,
    at INTEGER NOT NULL,
    what TEXT NOT NULL,
    verdict TEXT,
    attempt INTEGER NOT NULL,
    reason TEXT NOT NULL,
    by TEXT,
    PRIMARY KEY (task, n)
) WITHOUT ROWID;

-- == ledger ========================================================================================================
-- Per minute of begin, environment and type; moved in the transaction that changes a task.
CREATE TABLE ledger (
    minute INTEGER NOT NULL,
    environment INTEGER NOT NULL,
    type INTEGER NOT NULL,
    succeeded INTEGER NOT NULL DEFAULT 0,
    failed INTEGER NOT NULL DEFAULT 0,
    cancelled INTEGER NOT NULL DEFAULT 0,
    in_time INTEGER NOT NULL DEFAULT 0,
    gap INTEGER NOT NULL DEFAULT 0,
    settled_failed INTEGER NOT NULL DEFAULT 0,
    settled_gap INTEGER NOT NULL DEFAULT 0,
    loose INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (minute, environment, type)
) WITHOUT ROWID;

-- What `ledger` adds up to, written with it: by minute over all types, and by hour. A week of 10 million tasks of 200 types is
-- 747,000 rows there, 33,000 by hour and 9,800 over all types.
CREATE TABLE ledger_all (
    minute INTEGER NOT NULL,
    environment INTEGER NOT NULL,
    succeeded INTEGER NOT NULL DEFAULT 0,
    failed INTEGER NOT NULL DEFAULT 0,
    cancelled INTEGER NOT NULL DEFAULT 0,
    in_time INTEGER NOT NULL DEFAULT 0,
    gap INTEGER NOT NULL DEFAULT 0,
    settled_failed INTEGER NOT NULL DEFAULT 0,
    settled_gap INTEGER NOT NULL DEFAULT 0,
    loose INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (minute, environment)
) WITHOUT ROWID;
CREATE TABLE ledger_hour (
    hour INTEGER NOT NULL,
    environment INTEGER NOT NULL,
    type INTEGER NOT NULL,
    succeeded INTEGER NOT NULL DEFAULT 0,
    failed INTEGER NOT NULL DEFAULT 0,
    cancelled INTEGER NOT NULL DEFAULT 0,
    in_time INTEGER NOT NULL DEFAULT 0,
    gap INTEGER NOT NULL DEFAULT 0,
    settled_failed INTEGER NOT NULL DEFAULT 0,
    settled_gap INTEGER NOT NULL DEFAULT 0,
    loose INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (hour, environment, type)
) WITHOUT ROWID;

-- How long tasks that succeeded took, by hour of begin: how many fell into which bin of core/durations.py. Moved with the tasks, in
-- the transaction that changes them.
CREATE TABLE duration (
    hour INTEGER NOT NULL,
    environment INTEGER NOT NULL,
    type INTEGER NOT NULL,
    bin INTEGER NOT NULL,
    n INTEGER NOT NULL,
    PRIMARY KEY (type, hour, environment, bin)
) WITHOUT ROWID;
-- The same by day, for windows of days: a week of 200 types is 842,000 rows above, 54,000 here.
CREATE TABLE duration_day (
    day INTEGER NOT NULL,
    environment INTEGER NOT NULL,
    type INTEGER NOT NULL,
    bin INTEGER NOT NULL,
    n INTEGER NOT NULL,
    PRIMARY KEY (type, day, environment, bin)
) WITHOUT ROWID;

-- == expectations ==================================================================================================
-- A name that is expected somewhere. Every task of it that began at `since` or later stands in `seen`, so that pairing never
-- searches the tasks. `within_max`: the longest patience that any expectation of it had (ns).
CREATE TABLE expected_name (
    id INTEGER PRIMARY KEY,
    environment INTEGER NOT NULL,
    name TEXT NOT NULL,
    since INTEGER NOT NULL,
    within_max INTEGER NOT NULL DEFAULT 0,
    UNIQUE (environment, name)
);

-- What must begin: no task until it is missed; then a row of `task` has its id. `facts` as in a task row. `mark`: what the task
-- must bear beside its name ('' nothing, else key:.., parent:.., trace:..). `met`: the task that met it, in time or
-- `late`. `cause`: the task that it must follow; `void`: that one turned out to have another name. `check_at`: when to look
-- at it again.
CREATE TABLE expectation (
    id BLOB PRIMARY KEY,
    named INTEGER NOT NULL,
    mark TEXT NOT NULL,
    at INTEGER NOT NULL,
    within INTEGER NOT NULL,
    channel INTEGER NOT NULL,
    cause BLOB,
    void INTEGER NOT NULL DEFAULT 0,
    met BLOB,
    late INTEGER NOT NULL DEFAULT 0,
    check_at INTEGER,
    facts BLOB NOT NULL
) WITHOUT ROWID;
CREATE INDEX expectation_near ON expectation (named, mark, at);
CREATE INDEX expectation_check ON expectation (check_at) WHERE check_at IS NOT NULL;
CREATE INDEX expectation_unmet ON expectation (named, mark, at) WHERE met IS NULL OR late = 1;
CREATE INDEX expectation_cause ON expectation (cause) WHERE cause IS NOT NULL;
CREATE INDEX expectation_age ON expectation (at);

-- A task that an expectation may be met by, and which it met. `well`: it ended well; `dirty`: it must be paired anew.
CREATE TABLE seen (
    task BLOB PRIMARY KEY,
    named INTEGER NOT NULL,
    began_at INTEGER NOT NULL,
    well INTEGER NOT NULL,
    met BLOB,
    late INTEGER NOT NULL DEFAULT 0,
    dirty INTEGER NOT NULL DEFAULT 1
) WITHOUT ROWID;
CREATE INDEX seen_dirty ON seen (task) WHERE dirty = 1;
CREATE INDEX seen_age ON seen (began_at);
-- One row for each mark that it bears. `taken`: it met one in time.
CREATE TABLE seen_mark (
    named INTEGER NOT NULL,
    mark TEXT NOT NULL,
    began_at INTEGER NOT NULL,
    task BLOB NOT NULL,
    taken INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (named, mark, began_at, task)
) WITHOUT ROWID;
CREATE INDEX seen_mark_task ON seen_mark (task);
CREATE INDEX seen_mark_free ON seen_mark (named, mark, began_at) WHERE taken = 0;

-- How far a cron rule's minutes have been made into expectations.
CREATE TABLE expect_rule (id BLOB PRIMARY KEY, made_until INTEGER NOT NULL) WITHOUT ROWID;

-- Where two live tasks of one name and key would be told: started and not ended, of types with overlap = "warn" only.
CREATE TABLE overlapping (
    task BLOB PRIMARY KEY,
    type INTEGER NOT NULL,
    environment INTEGER NOT NULL,
    same BLOB NOT NULL,
    started_at INTEGER NOT NULL,
    ended_at INTEGER
) WITHOUT ROWID;
CREATE INDEX overlapping_same ON overlapping (type, environment, same, started_at);
CREATE INDEX overlapping_age ON overlapping (started_at);

-- == clocks ========================================================================================================
-- Times in which something may be missing. `cause`: down, frozen or clock (the daemon itself; instance NULL), records (their
-- numbers first..last never came) or dropped (the instance could not keep them). `missing`: how many records. `sure_at`: from
-- when it counts; what is on its way is not missing yet.
CREATE TABLE blind_window (
    no INTEGER PRIMARY KEY,
    cause TEXT NOT NULL CHECK (cause IN ('down', 'frozen', 'clock', 'records', 'dropped')),
    instance INTEGER,
    from_at INTEGER NOT NULL,
    to_at INTEGER NOT NULL,
    first INTEGER,
    last INTEGER,
    missing INTEGER NOT NULL DEFAULT 0,
    sure_at INTEGER NOT NULL
);
CREATE INDEX blind_window_time ON blind_window (to_at, from_at);
CREATE INDEX blind_window_instance ON blind_window (instance) WHERE instance IS NOT NULL;

-- When this machine's wall clock was set, and by how much (ns): what was told before has times of the old clock.
CREATE TABLE clock_jump (at INTEGER NOT NULL, by INTEGER NOT NULL);

-- The earliest time at which a captured task of a type finished in an instance. If that instance lived on for long enough, the
-- type ends by itself (type.ends_alone) and its rows here go.
CREATE TABLE sight (
    type INTEGER NOT NULL,
    instance INTEGER NOT NULL,
    finished_at INTEGER NOT NULL,
    PRIMARY KEY (type, instance)
) WITHOUT ROWID;
CREATE INDEX sight_instance ON sight (instance);

-- == incidents and the outbox ======================================================================================
-- The loose ends that share a cause. Key: (environment, service, instance) for lost, else (environment, service, name); the
-- other of name and instance is NULL. What is open and settled of it stands in incident_open and incident_settled. `arrivals` counts the
-- loose ends that ever joined, `told*` what the latest notice said, `next_at` when the machine must look again (NULL: never
-- by itself), `quiet_since` since when nothing is open. `reached`: open_after was reached; `grave`: one was failed or lost.
CREATE TABLE incident (
    no INTEGER PRIMARY KEY,
    id TEXT NOT NULL UNIQUE,
    state TEXT NOT NULL CHECK (state IN ('pending', 'open', 'resolved')),
    environment TEXT NOT NULL,
    service TEXT NOT NULL,
    name TEXT,
    instance TEXT,
    problem TEXT NOT NULL,
    severity TEXT NOT NULL,
    title TEXT NOT NULL,
    reason TEXT NOT NULL,
    detail TEXT NOT NULL,
    opened_at INTEGER NOT NULL,
    resolved_at INTEGER,
    resolution TEXT,
    arrivals INTEGER NOT NULL DEFAULT 0,
    reached INTEGER NOT NULL DEFAULT 0,
    grave INTEGER NOT NULL DEFAULT 0,
    quiet_since INTEGER,
    told INTEGER NOT NULL DEFAULT 0,
    told_at INTEGER,
    told_severity TEXT,
    sequence INTEGER NOT NULL DEFAULT 0,
    held INTEGER NOT NULL DEFAULT 0, -- a silence has withheld a notice of it
    next_at INTEGER
);
CREATE INDEX incident_held ON incident (no) WHERE held = 1;
CREATE UNIQUE INDEX incident_live ON incident (environment, service, ifnull(name, ''), ifnull(instance, ''))
    WHERE state != 'resolved';
CREATE INDEX incident_next ON incident (next_at) WHERE next_at IS NOT NULL;
CREATE INDEX incident_state ON incident (state, no DESC);

-- How many loose ends of an incident are open, by type and by what is wrong (`verdict` -1: none; `failed`: its state), and how
-- many are settled, by how. Kept by the triggers below, in the statement that changes a task row and by nothing else: an
-- incident of 100,000 loose ends is counted as fast as one of three. A count that fell to 0 stays as a row. What was settled stays
-- counted when retention takes its task away: it happened.
CREATE TABLE incident_open (
    incident INTEGER NOT NULL,
    type INTEGER NOT NULL,
    verdict INTEGER NOT NULL,
    failed INTEGER NOT NULL,
    n INTEGER NOT NULL,
    PRIMARY KEY (incident, type, verdict, failed)
) WITHOUT ROWID;
CREATE TABLE incident_settled (
    incident INTEGER NOT NULL,
    settled INTEGER NOT NULL,
    n INTEGER NOT NULL,
    PRIMARY KEY (incident, settled)
) WITHOUT ROWID;
-- 4 is the state `failed` of core/resources.py STATES.
CREATE TRIGGER incident_open_less AFTER UPDATE OF incident, loose, verdict, state, type ON task
    WHEN old.incident IS NOT NULL AND old.loose = 1
BEGIN
    UPDATE incident_open SET n = n - 1 WHERE incident = old.incident AND type = old.type
        AND verdict = ifnull(old.verdict, -1) AND failed = (old.state = 4);
END;
CREATE TRIGGER incident_open_more AFTER UPDATE OF incident, loose, verdict, state, type ON task
    WHEN new.incident IS NOT NULL AND new.loose = 1
BEGIN
    INSERT INTO incident_open (incident, type, verdict, failed, n)
        VALUES (new.incident, new.type, ifnull(new.verdict, -1), new.state = 4, 1)
        ON CONFLICT DO UPDATE SET n = n + 1;
END;
CREATE TRIGGER incident_open_gone AFTER DELETE ON task WHEN old.incident IS NOT NULL AND old.loose = 1
BEGIN
    UPDATE incident_open SET n = n - 1 WHERE incident = old.incident AND type = old.type
        AND verdict = ifnull(old.verdict, -1) AND failed = (old.state = 4);
END;
CREATE TRIGGER incident_settled_less AFTER UPDATE OF incident, settled ON task
    WHEN old.incident IS NOT NULL AND old.settled IS NOT NULL
BEGIN
    UPDATE incident_settled SET n = n - 1 WHERE incident = old.incident AND settled = old.settled;
END;
CREATE TRIGGER incident_settled_more AFTER UPDATE OF incident, settled ON task
    WHEN new.incident IS NOT NULL AND new.settled IS NOT NULL
BEGIN
    INSERT INTO incident_settled (incident, settled, n) VALUES (new.incident, new.settled, 1)
        ON CONFLICT DO UPDATE SET n = n + 1;
END;
-- Every transition with its named reason and in words: "why was I paged" is a row.
CREATE TABLE incident_why (
    incident INTEGER NOT NULL,
    n INTEGER NOT NULL,
    at INTEGER NOT NULL,
    state TEXT NOT NULL,
    reason TEXT NOT NULL,
    words TEXT NOT NULL,
    PRIMARY KEY (incident, n)
) WITHOUT ROWID;

-- The outbox: one message about one incident to one endpoint, written in the transaction of its transition. The body is
-- built once. `attempt`: delivery attempts begun; while delivering: `leased_at` is when the last one began, `lease_until` when
-- it is given up and made again. Without an incident it is a test of the endpoint.
CREATE TABLE notice (
    no INTEGER PRIMARY KEY,
    id TEXT NOT NULL UNIQUE,
    incident INTEGER,
    endpoint TEXT NOT NULL,
    sequence INTEGER NOT NULL,
    type TEXT NOT NULL,
    reason TEXT NOT NULL,
    state TEXT NOT NULL CHECK (state IN ('pending', 'delivering', 'delivered', 'exhausted', 'superseded', 'cancelled')),
    created_at INTEGER NOT NULL,
    delivered_at INTEGER,
    next_attempt_at INTEGER,
    leased_at INTEGER,
    lease_until INTEGER,
    attempt INTEGER NOT NULL DEFAULT 0,
    body BLOB NOT NULL
);
CREATE INDEX notice_due ON notice (endpoint, next_attempt_at) WHERE state = 'pending';
CREATE INDEX notice_flying ON notice (endpoint, lease_until) WHERE state = 'delivering';
CREATE INDEX notice_incident ON notice (incident, endpoint, no);
CREATE INDEX notice_sent ON notice (endpoint, leased_at) WHERE leased_at IS NOT NULL;
CREATE INDEX notice_test ON notice (endpoint, created_at) WHERE incident IS NULL;

CREATE TABLE delivery_attempt (
    notice INTEGER NOT NULL,
    n INTEGER NOT NULL,
    at INTEGER NOT NULL,
    status INTEGER,
    duration REAL NOT NULL,
    detail TEXT NOT NULL,
    PRIMARY KEY (notice, n)
) WITHOUT ROWID;

-- How an endpoint does. `failures`: failed attempts in a row; `fingerprint`: of its address, so that a new one starts afresh;
-- `by`: the person who disabled it (NULL: nobody did), `delivered_at`: its latest yes.
CREATE TABLE endpoint (
    name TEXT PRIMARY KEY,
    fingerprint TEXT NOT NULL,
    state TEXT NOT NULL CHECK (state IN ('ok', 'failing', 'disabled')),
    failures INTEGER NOT NULL DEFAULT 0,
    since INTEGER NOT NULL,
    detail TEXT NOT NULL DEFAULT '',
    by TEXT,
    delivered_at INTEGER
) WITHOUT ROWID;

-- == acknowledgements, silences and dismissals =====================================================================
-- Somebody has an incident in hand, until then. Cleared rows go; what happened stands in incident_why and audit. `count`,
-- `severity`: how the incident stood then; `told`: its notice was written.
CREATE TABLE acknowledgement (
    incident INTEGER PRIMARY KEY,
    at INTEGER NOT NULL,
    until INTEGER NOT NULL,
    by TEXT NOT NULL,
    note TEXT NOT NULL,
    count INTEGER NOT NULL,
    severity TEXT NOT NULL,
    told INTEGER NOT NULL DEFAULT 0
);

-- What must be quiet, from when until when. `matchers`: as text, joined by commas. `ended_by`: who ended it before its time.
CREATE TABLE silence (
    no INTEGER PRIMARY KEY,
    id TEXT NOT NULL UNIQUE,
    matchers TEXT NOT NULL,
    author TEXT NOT NULL,
    comment TEXT NOT NULL,
    created_at INTEGER NOT NULL,
    starts_at INTEGER NOT NULL,
    ends_at INTEGER NOT NULL,
    ended_by TEXT
);
CREATE INDEX silence_end ON silence (ends_at);

-- A person dismissed loose ends. `place`: how many of its list were gone through. `done`: how many were dismissed, `undone`: how
-- many of those were taken back.
CREATE TABLE dismissal (
    no INTEGER PRIMARY KEY,
    id TEXT NOT NULL UNIQUE,
    state TEXT NOT NULL CHECK (state IN ('running', 'done', 'undoing', 'undone')),
    at INTEGER NOT NULL,
    by TEXT NOT NULL,
    note TEXT NOT NULL,
    what TEXT NOT NULL,
    digest TEXT NOT NULL,
    total INTEGER NOT NULL,
    place INTEGER NOT NULL DEFAULT 0,
    done INTEGER NOT NULL DEFAULT 0,
    undone INTEGER NOT NULL DEFAULT 0
);
CREATE INDEX dismissal_busy ON dismissal (no) WHERE state IN ('running', 'undoing');
CREATE INDEX dismissal_age ON dismissal (at);
-- Its frozen list, 16 bytes a task, while it can be taken back. By itself: a step must not write it again with its place.
CREATE TABLE dismissal_list (dismissal INTEGER PRIMARY KEY, tasks BLOB NOT NULL);
-- Which dismissal settled a task, while it can be undone.
CREATE TABLE dismissed (task BLOB PRIMARY KEY, dismissal INTEGER NOT NULL) WITHOUT ROWID;
CREATE INDEX dismissed_by ON dismissed (dismissal);

-- == functions, replays and orders =================================================================================
-- What an instance can run again. The rows stay with an instance that is gone: they say with which signature and code its
-- recorded tasks ran.
CREATE TABLE function (
    instance INTEGER NOT NULL,
    name TEXT NOT NULL,
    signature TEXT,
    code TEXT,
    replay TEXT NOT NULL CHECK (replay IN ('yes', 'ask')),
    caution TEXT,
    via TEXT,
    PRIMARY KEY (instance, name)
) WITHOUT ROWID;

CREATE TABLE replay (
    no INTEGER PRIMARY KEY,
    id TEXT NOT NULL UNIQUE,
    state TEXT NOT NULL CHECK (state IN ('running', 'paused', 'done', 'cancelled')),
    requested_by TEXT NOT NULL,
    requested_at INTEGER NOT NULL,
    note TEXT
);

-- One task of a replay; its id is that of the new task. `state` holds only what no fact can say (core/orders.py); what the new
-- task did is read from its own row. `outcome`: what the claimant told. `met` = 1: the new task has facts, so nobody has to
-- watch for it. `was_done` = 1: the original had ended well before this was asked for, so its good end is no news at the claim.
CREATE TABLE replay_order (
    id BLOB PRIMARY KEY,
    replay INTEGER NOT NULL,
    task BLOB NOT NULL,
    root BLOB NOT NULL,
    depth INTEGER NOT NULL,
    name TEXT NOT NULL,
    environment TEXT NOT NULL,
    service TEXT NOT NULL,
    queue TEXT,
    args TEXT NOT NULL,
    edited INTEGER NOT NULL DEFAULT 0,
    signature TEXT,
    was_done INTEGER NOT NULL DEFAULT 0,
    state TEXT NOT NULL CHECK (state IN ('waiting', 'claimed', 'handed_over', 'refused', 'expired', 'outcome_unknown', 'ran',
        'did_not_run', 'cancelled')),
    instance INTEGER,
    fence INTEGER NOT NULL DEFAULT 0,
    outcome TEXT,
    met INTEGER NOT NULL DEFAULT 0,
    created_at INTEGER NOT NULL,
    claimed_at INTEGER,
    expires_at INTEGER NOT NULL,
    detail TEXT,
    item INTEGER, -- the item of the plan that it was made for
    over TEXT     -- the state people see, once nothing more is expected of it (core/orders.py OVER)
) WITHOUT ROWID;
CREATE INDEX replay_order_replay ON replay_order (replay, item);
CREATE INDEX replay_order_over ON replay_order (replay, over);
CREATE INDEX replay_order_task ON replay_order (task);
CREATE INDEX replay_order_root ON replay_order (root);
-- The last word on a double press: whatever else goes wrong, one chain has one order to be taken.
CREATE UNIQUE INDEX replay_order_waiting ON replay_order (root) WHERE state = 'waiting';
CREATE INDEX replay_order_expiry ON replay_order (expires_at) WHERE state = 'waiting';
CREATE INDEX replay_order_watched ON replay_order (claimed_at) WHERE met = 0 AND state IN ('claimed', 'handed_over');

-- 128: store/codes.py ORDER. What is told of an order's task makes its state worth a look again.
CREATE TRIGGER replay_order_told AFTER INSERT ON task WHEN new.flags & 128
BEGIN
    UPDATE replay_order SET over = NULL WHERE id = new.id AND over IS NOT NULL;
END;
CREATE TRIGGER replay_order_changed AFTER UPDATE OF state, verdict ON task WHEN new.flags & 128
BEGIN
    UPDATE replay_order SET over = NULL WHERE id = new.id AND over IS NOT NULL;
END;

-- == replay plans and their runs ===================================================================================
-- "A later task with the same key succeeded" is asked for every task of a plan; `key:` in a query is found by it too.
CREATE INDEX task_key ON task (key, type) WHERE key IS NOT NULL;

-- A frozen list of tasks to run again. `selection` and `edit` are JSON as they were asked for; `digest` NULL: it is still
-- being made; `reasons`: how often each reason was met, as JSON; `replay`: the one run that was made of it.
CREATE TABLE replay_plan (
    no INTEGER PRIMARY KEY,
    id TEXT NOT NULL UNIQUE,
    made_by TEXT NOT NULL,
    made_at INTEGER NOT NULL,
    expires_at INTEGER NOT NULL,
    selection TEXT NOT NULL,
    edit TEXT,
    digest TEXT,
    total INTEGER NOT NULL DEFAULT 0,
    reasons TEXT NOT NULL DEFAULT '[]',
    replay INTEGER UNIQUE
);
-- What was said of some of its tasks, once for all that it was said of. `n`: of how many; `taken` = 1: the run takes them.
CREATE TABLE replay_plan_why (
    plan INTEGER NOT NULL,
    no INTEGER NOT NULL,
    answer TEXT NOT NULL CHECK (answer IN ('ready', 'confirm', 'blocked')),
    reasons TEXT NOT NULL,
    n INTEGER NOT NULL DEFAULT 0,
    taken INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (plan, no)
) WITHOUT ROWID;
-- `seal`: of the arguments and the signature that were judged. `state` NULL: nothing was done about it yet; order: an order was
-- made of it; blocked: what stood in the way by then is in `detail`.
CREATE TABLE replay_plan_item (
    plan INTEGER NOT NULL,
    n INTEGER NOT NULL,
    task BLOB NOT NULL,
    why INTEGER NOT NULL,
    seal BLOB NOT NULL,
    state TEXT CHECK (state IN ('order', 'blocked')),
    detail TEXT,
    PRIMARY KEY (plan, n)
) WITHOUT ROWID;
CREATE INDEX replay_plan_item_why ON replay_plan_item (plan, why, n);

-- How a replay that was planned is run. `next_n`: the first item nobody has looked at; `pending`: how many of those it took have
-- neither an order nor a block; `released`, `blocked`: what became of the others; `next_at`: when the pace allows the next order (ns);
-- `forgiven`: the failures there were when a person last said go on; `held_since`: since when nobody lives to take them.
CREATE TABLE replay_run (
    replay INTEGER PRIMARY KEY,
    plan INTEGER NOT NULL,
    confirm TEXT NOT NULL,
    canary INTEGER NOT NULL,
    per_second REAL NOT NULL,
    in_flight INTEGER NOT NULL,
    stop_after_failures INTEGER NOT NULL,
    taken INTEGER NOT NULL,
    pending INTEGER NOT NULL,
    released INTEGER NOT NULL DEFAULT 0,
    blocked INTEGER NOT NULL DEFAULT 0,
    next_n INTEGER NOT NULL DEFAULT 0,
    next_at INTEGER NOT NULL,
    canary_passed INTEGER NOT NULL DEFAULT 0,
    forgiven INTEGER NOT NULL DEFAULT 0,
    held_since INTEGER,
    why TEXT
);
CREATE INDEX replay_run_moving ON replay_run (replay) WHERE pending > 0;

-- == access: tokens, sessions, idempotency keys, audit =============================================================
-- Secrets are kept as SHA-256; an order key in clear, since both ends make a mac with it. `kind` 'file': the operator token
-- that `serve` made beside the database; 'made': by `token create`.
CREATE TABLE token (
    id TEXT PRIMARY KEY,
    role TEXT NOT NULL CHECK (role IN ('ingest', 'viewer', 'operator')),
    service TEXT,
    name TEXT NOT NULL,
    kind TEXT NOT NULL CHECK (kind IN ('file', 'made')),
    secret BLOB NOT NULL,
    order_key TEXT,
    created_at INTEGER NOT NULL,
    revoked_at INTEGER,
    CHECK ((role = 'ingest') = (service IS NOT NULL AND order_key IS NOT NULL))
) WITHOUT ROWID;

-- A session lives as long as the token it was signed in with, and no longer than expires_at.
CREATE TABLE session (
    secret BLOB PRIMARY KEY,
    token TEXT NOT NULL REFERENCES token (id),
    created_at INTEGER NOT NULL,
    expires_at INTEGER NOT NULL
) WITHOUT ROWID;

-- One-use codes of sign-in links; taken by deleting the row.
CREATE TABLE signin_link (
    secret BLOB PRIMARY KEY,
    token TEXT NOT NULL REFERENCES token (id),
    expires_at INTEGER NOT NULL
) WITHOUT ROWID;

-- The first answer to an act, by method and concrete path and the sender's key. `status` NULL: it is still running.
CREATE TABLE idempotency (
    door TEXT NOT NULL,
    key TEXT NOT NULL,
    body_hash BLOB NOT NULL,
    at INTEGER NOT NULL,
    status INTEGER,
    headers TEXT,
    body BLOB,
    PRIMARY KEY (door, key)
) WITHOUT ROWID;
CREATE INDEX idempotency_age ON idempotency (at);

-- Append-only: every act of a person.
CREATE TABLE audit (
    n INTEGER PRIMARY KEY AUTOINCREMENT,
    at INTEGER NOT NULL,
    actor TEXT NOT NULL,
    act TEXT NOT NULL,
    subject TEXT NOT NULL,
    detail TEXT NOT NULL DEFAULT ''
);
CREATE TRIGGER audit_is_never_edited BEFORE UPDATE ON audit BEGIN SELECT RAISE(ABORT, 'the audit log is append-only'); END;
CREATE TRIGGER audit_is_never_cut BEFORE DELETE ON audit BEGIN SELECT RAISE(ABORT, 'the audit log is append-only'); END;

-- == telemetry: pings, counters, what is to be exported ============================================================
-- Starts without a rid that no end has come for: an end without one ends the newest (store/pings.py).
CREATE TABLE ping_run (
    channel INTEGER NOT NULL,
    service TEXT NOT NULL,
    slug TEXT NOT NULL,
    at INTEGER NOT NULL,
    task BLOB NOT NULL,
    PRIMARY KEY (channel, service, slug, at, task)
) WITHOUT ROWID;
CREATE INDEX ping_run_task ON ping_run (task);

-- What was counted since this file was made; never removed and never lowered, so that a restart or retention resets nothing.
-- `what`: core/counting.py, and below. `label`: an outcome, a bucket, an endpoint; environment and type are 0 where they say nothing.
CREATE TABLE counter (
    what TEXT NOT NULL,
    environment INTEGER NOT NULL,
    type INTEGER NOT NULL,
    label TEXT NOT NULL,
    n INTEGER NOT NULL,
    PRIMARY KEY (type, environment, what, label)
) WITHOUT ROWID;
CREATE TRIGGER counter_verdict AFTER UPDATE OF verdict ON task WHEN new.verdict IS NOT NULL AND new.verdict IS NOT old.verdict
BEGIN
    INSERT INTO counter (what, environment, type, label, n) VALUES ('verdict', new.environment, new.type, new.verdict, 1)
        ON CONFLICT DO UPDATE SET n = n + 1;
END;
CREATE TRIGGER counter_settled AFTER UPDATE OF settled ON task WHEN new.settled IS NOT NULL AND old.settled IS NULL
BEGIN
    INSERT INTO counter (what, environment, type, label, n) VALUES ('settled', new.environment, new.type, new.settled, 1)
        ON CONFLICT DO UPDATE SET n = n + 1;
END;
CREATE TRIGGER counter_dropped AFTER UPDATE OF dropped ON instance WHEN new.dropped > old.dropped
BEGIN
    INSERT INTO counter (what, environment, type, label, n) VALUES ('dropped', 0, 0, new.service, new.dropped - old.dropped)
        ON CONFLICT DO UPDATE SET n = n + excluded.n;
END;

-- What is to be exported over OTLP (store/outgoing.py). `signal`: span or log; `kind`: the state it ended in, a verdict, or
-- exception; `due_at`: not before then; `at`: when what it tells of happened (ns).
CREATE TABLE outgoing (
    n INTEGER PRIMARY KEY AUTOINCREMENT,
    signal TEXT NOT NULL CHECK (signal IN ('span', 'log')),
    due_at INTEGER NOT NULL,
    task BLOB NOT NULL,
    attempt INTEGER NOT NULL,
    kind TEXT NOT NULL,
    at INTEGER NOT NULL,
    detail TEXT NOT NULL
);
CREATE INDEX outgoing_next ON outgoing (signal, n);
