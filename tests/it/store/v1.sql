-- A state.db of schema version 1 as the program of that version left it. Never edited once that
-- version was released: it shows that what is on disk somewhere can still be read.
PRAGMA application_id = 1347176781;
PRAGMA user_version = 1;
PRAGMA foreign_keys=OFF;
BEGIN TRANSACTION;
CREATE TABLE episodes (
    target  TEXT PRIMARY KEY,
    v       INTEGER NOT NULL,
    at      INTEGER NOT NULL,
    episode TEXT NOT NULL
) STRICT, WITHOUT ROWID;
INSERT INTO episodes VALUES('payment-db-primary',1,1790000003000000,'{"alerts":[{"rule":"slots","subject":"target","warning":{"state":"firing","clearing":null},"critical":{"state":"pending","served":{"secs":4,"nanos":500000000},"readings":5},"since":{"at":"2026-09-21T14:13:20Z","held":{"secs":64,"nanos":0}},"critical_since":null,"observed":"44 of 47 usable slots in use"}],"incident":{"id":"a1b2c3d4e5f60718","severity":"critical","worst":"critical","opened_at":"2026-09-21T14:13:20Z","held":{"secs":3,"nanos":0},"below_critical":{"secs":0,"nanos":0}},"told":{"on-call":{"incident":"a1b2c3d4e5f60718","key":"plimsoll/test/db","opened_at":"2026-09-21T14:13:20Z","held":{"secs":3,"nanos":0},"severity":"critical","since":{"secs":0,"nanos":0}}},"sequence":3,"unsettled":null}');
CREATE TABLE memories (
    target TEXT PRIMARY KEY,
    v      INTEGER NOT NULL,
    at     INTEGER NOT NULL,
    memory TEXT NOT NULL
) STRICT, WITHOUT ROWID;
INSERT INTO memories VALUES('payment-db-primary',1,1790000003000000,'{"last_known":{"at":"2026-09-21T14:13:23Z","slots":{"max":50,"reserved":3,"usable":47,"used":44,"free":3,"utilization":0.9361702127659575},"holders":[{"application":"payment-api","role":"payment","database":"payment","address":"several","connections":39,"waiting_for_lock":36,"states":[{"state":"idle_in_transaction","connections":39}],"other":false}],"states":[{"state":"idle_in_transaction","connections":39}],"superusers":["postgres"]},"refused":[]}');
CREATE TABLE transitions (
    n          INTEGER PRIMARY KEY,
    target     TEXT NOT NULL,
    at         INTEGER NOT NULL,
    ordinal    INTEGER NOT NULL,
    v          INTEGER NOT NULL,
    transition TEXT NOT NULL,
    UNIQUE (target, at, ordinal)
) STRICT;
INSERT INTO transitions VALUES(1,'payment-db-primary',1790000001000000,0,1,'{"kind":"opened","incident":"incident-of-payment-db-primary","severity":"warning","at":"2026-09-21T14:13:21Z"}');
INSERT INTO transitions VALUES(2,'payment-db-primary',1790000001000000,1,1,'{"kind":"severity","incident":"incident-of-payment-db-primary","severity":"critical","at":"2026-09-21T14:13:21Z"}');
INSERT INTO transitions VALUES(3,'payment-db-primary',1790000001000000,2,1,'{"kind":"alert","rule":"role_limit","subject":{"role":"payment"},"state":"firing","severity":"critical","at":"2026-09-21T14:13:21Z"}');
INSERT INTO transitions VALUES(4,'payment-db-primary',1790000002000000,0,1,'{"kind":"opened","incident":"incident-of-payment-db-primary","severity":"warning","at":"2026-09-21T14:13:22Z"}');
INSERT INTO transitions VALUES(5,'payment-db-primary',1790000002000000,1,1,'{"kind":"severity","incident":"incident-of-payment-db-primary","severity":"critical","at":"2026-09-21T14:13:22Z"}');
INSERT INTO transitions VALUES(6,'payment-db-primary',1790000002000000,2,1,'{"kind":"alert","rule":"role_limit","subject":{"role":"payment"},"state":"firing","severity":"critical","at":"2026-09-21T14:13:22Z"}');
INSERT INTO transitions VALUES(7,'payment-db-primary',1790000003000000,0,1,'{"kind":"opened","incident":"incident-of-payment-db-primary","severity":"warning","at":"2026-09-21T14:13:23Z"}');
INSERT INTO transitions VALUES(8,'payment-db-primary',1790000003000000,1,1,'{"kind":"severity","incident":"incident-of-payment-db-primary","severity":"critical","at":"2026-09-21T14:13:23Z"}');
INSERT INTO transitions VALUES(9,'payment-db-primary',1790000003000000,2,1,'{"kind":"alert","rule":"role_limit","subject":{"role":"payment"},"state":"firing","severity":"critical","at":"2026-09-21T14:13:23Z"}');
CREATE TABLE incidents (
    id          TEXT PRIMARY KEY,
    target      TEXT NOT NULL,
    severity    TEXT NOT NULL,
    state       TEXT NOT NULL,
    opened_at   INTEGER NOT NULL,
    resolved_at INTEGER,
    updated_at  INTEGER NOT NULL,
    v           INTEGER NOT NULL,
    report      TEXT NOT NULL
) STRICT;
INSERT INTO incidents VALUES('incident-of-payment-db-primary','payment-db-primary','critical','open',1790000000000000,NULL,1790000003000000,1,'{"id":"incident-of-payment-db-primary","dedup_key":"plimsoll/test/payment-db-primary","target":"payment-db-primary","labels":{"env":"production"},"link":null,"severity":"critical","state":"open","opened_at":"2026-09-21T14:13:20Z","resolved_at":null,"held":{"secs":3,"nanos":0},"at":"2026-09-21T14:13:23Z","alerts":[{"rule":"slots","subject":"target","severity":"warning","state":"firing","since":"2026-09-21T14:13:20Z","held":{"secs":64,"nanos":0},"observed":"44 of 47 usable slots in use","threshold":"above 80 % for 60 s"}],"slots":{"max":50,"reserved":3,"usable":47,"used":48,"free":-1,"utilization":1.0212765957446808},"known_at":null,"failure":null,"holders":[{"application":"payment-api","role":"payment","database":"payment","address":"several","connections":39,"waiting_for_lock":36,"states":[{"state":"idle_in_transaction","connections":39}],"other":false}],"states":[{"state":"idle_in_transaction","connections":39}],"refused":[["reserved_for_superusers",3]],"superusers":["postgres"]}');
CREATE TABLE outbox (
    n            INTEGER PRIMARY KEY,
    id           TEXT NOT NULL UNIQUE,
    incident     TEXT NOT NULL,
    receiver     TEXT NOT NULL,
    key          TEXT NOT NULL,
    sequence     INTEGER NOT NULL,
    kind         TEXT NOT NULL,
    decided_at   INTEGER NOT NULL,
    v            INTEGER NOT NULL,
    notification TEXT NOT NULL,
    state        TEXT NOT NULL,
    attempts     INTEGER NOT NULL,
    next_at      INTEGER,
    finished_at  INTEGER,
    error        TEXT
) STRICT;
INSERT INTO outbox VALUES(1,'payment-db-primary-on-call-0001','incident-of-payment-db-primary','on-call','plimsoll/test/payment-db-primary',1,'trigger',1790000001000000,1,'{"id":"payment-db-primary-on-call-0001","receiver":"on-call","key":"plimsoll/test/payment-db-primary","sequence":1,"kind":"trigger","after_previous":{"secs":0,"nanos":0},"decided_at":"2026-09-21T14:13:21Z","report":{"id":"incident-of-payment-db-primary","dedup_key":"plimsoll/test/payment-db-primary","target":"payment-db-primary","labels":{"env":"production"},"link":null,"severity":"critical","state":"open","opened_at":"2026-09-21T14:13:20Z","resolved_at":null,"held":{"secs":1,"nanos":0},"at":"2026-09-21T14:13:21Z","alerts":[{"rule":"slots","subject":"target","severity":"warning","state":"firing","since":"2026-09-21T14:13:20Z","held":{"secs":64,"nanos":0},"observed":"44 of 47 usable slots in use","threshold":"above 80 % for 60 s"}],"slots":{"max":50,"reserved":3,"usable":47,"used":48,"free":-1,"utilization":1.0212765957446808},"known_at":null,"failure":null,"holders":[{"application":"payment-api","role":"payment","database":"payment","address":"several","connections":39,"waiting_for_lock":36,"states":[{"state":"idle_in_transaction","connections":39}],"other":false}],"states":[{"state":"idle_in_transaction","connections":39}],"refused":[["reserved_for_superusers",1]],"superusers":["postgres"]}}','delivered',1,NULL,1790000001000000,NULL);
INSERT INTO outbox VALUES(2,'payment-db-primary-on-call-0002','incident-of-payment-db-primary','on-call','plimsoll/test/payment-db-primary',2,'update',1790000002000000,1,'{"id":"payment-db-primary-on-call-0002","receiver":"on-call","key":"plimsoll/test/payment-db-primary","sequence":2,"kind":"update","after_previous":{"secs":0,"nanos":0},"decided_at":"2026-09-21T14:13:22Z","report":{"id":"incident-of-payment-db-primary","dedup_key":"plimsoll/test/payment-db-primary","target":"payment-db-primary","labels":{"env":"production"},"link":null,"severity":"critical","state":"open","opened_at":"2026-09-21T14:13:20Z","resolved_at":null,"held":{"secs":2,"nanos":0},"at":"2026-09-21T14:13:22Z","alerts":[{"rule":"slots","subject":"target","severity":"warning","state":"firing","since":"2026-09-21T14:13:20Z","held":{"secs":64,"nanos":0},"observed":"44 of 47 usable slots in use","threshold":"above 80 % for 60 s"}],"slots":{"max":50,"reserved":3,"usable":47,"used":48,"free":-1,"utilization":1.0212765957446808},"known_at":null,"failure":null,"holders":[{"application":"payment-api","role":"payment","database":"payment","address":"several","connections":39,"waiting_for_lock":36,"states":[{"state":"idle_in_transaction","connections":39}],"other":false}],"states":[{"state":"idle_in_transaction","connections":39}],"refused":[["reserved_for_superusers",2]],"superusers":["postgres"]}}','owed',2,1790000090000000,NULL,'503 Service Unavailable');
INSERT INTO outbox VALUES(3,'payment-db-primary-on-call-0003','incident-of-payment-db-primary','on-call','plimsoll/test/payment-db-primary',3,'update',1790000003000000,1,'{"id":"payment-db-primary-on-call-0003","receiver":"on-call","key":"plimsoll/test/payment-db-primary","sequence":3,"kind":"update","after_previous":{"secs":0,"nanos":0},"decided_at":"2026-09-21T14:13:23Z","report":{"id":"incident-of-payment-db-primary","dedup_key":"plimsoll/test/payment-db-primary","target":"payment-db-primary","labels":{"env":"production"},"link":null,"severity":"critical","state":"open","opened_at":"2026-09-21T14:13:20Z","resolved_at":null,"held":{"secs":3,"nanos":0},"at":"2026-09-21T14:13:23Z","alerts":[{"rule":"slots","subject":"target","severity":"warning","state":"firing","since":"2026-09-21T14:13:20Z","held":{"secs":64,"nanos":0},"observed":"44 of 47 usable slots in use","threshold":"above 80 % for 60 s"}],"slots":{"max":50,"reserved":3,"usable":47,"used":48,"free":-1,"utilization":1.0212765957446808},"known_at":null,"failure":null,"holders":[{"application":"payment-api","role":"payment","database":"payment","address":"several","connections":39,"waiting_for_lock":36,"states":[{"state":"idle_in_transaction","connections":39}],"other":false}],"states":[{"state":"idle_in_transaction","connections":39}],"refused":[["reserved_for_superusers",3]],"superusers":["postgres"]}}','owed',0,NULL,NULL,NULL);
CREATE INDEX incidents_by_time ON incidents (opened_at);
CREATE INDEX incidents_resolved ON incidents (resolved_at) WHERE state = 'resolved';
CREATE INDEX outbox_owed ON outbox (receiver, key, sequence) WHERE state = 'owed';
CREATE INDEX outbox_finished ON outbox (finished_at) WHERE state <> 'owed';
CREATE INDEX outbox_by_incident ON outbox (incident);
COMMIT;
