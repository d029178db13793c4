BEGIN TRANSACTION;
CREATE TABLE console (
    id INTEGER PRIMARY KEY,
    task TEXT NOT NULL,
    timestamp INTEGER NOT NULL,
    level TEXT NOT NULL,
    worker TEXT NOT NULL,
    msg TEXT NOT NULL
);
INSERT INTO "console" VALUES(1,'2cba6548382c4adbbd0dacfb707ce2a2',1800000000000,'INFO','node1','line 0');
INSERT INTO "console" VALUES(2,'2cba6548382c4adbbd0dacfb707ce2a2',1800000000001,'INFO','node1','line 1');
INSERT INTO "console" VALUES(3,'2cba6548382c4adbbd0dacfb707ce2a2',1800000000002,'INFO','node1','line 2');
CREATE TABLE credentials (
    access_key TEXT PRIMARY KEY NOT NULL,
    secret_hash TEXT NOT NULL,
    user TEXT NOT NULL,
    task TEXT NOT NULL,
    label TEXT NOT NULL,
    created TEXT NOT NULL
);
INSERT INTO "credentials" VALUES('OWN','cb0aa3949fa65108bd3e813aa3696f6d954091d398207390e47af5ef24da8497','the administrator''s id','','of this server''s conf file','2030-01-01T00:00:00.000000+00:00');
CREATE TABLE files (
    name TEXT PRIMARY KEY NOT NULL,
    user TEXT NOT NULL,
    task TEXT NOT NULL
);
CREATE TABLE models (id TEXT PRIMARY KEY NOT NULL, name TEXT, user TEXT, made_by TEXT, company TEXT, created TEXT, tags TEXT, system_tags TEXT, uri TEXT, project TEXT, task TEXT, parent TEXT, framework TEXT, comment TEXT, ready INTEGER, last_iteration INTEGER, last_update TEXT, design TEXT, labels TEXT, metadata TEXT, ui_cache TEXT);
CREATE TABLE projects (id TEXT PRIMARY KEY NOT NULL, name TEXT, user TEXT, made_by TEXT, company TEXT, created TEXT, tags TEXT, system_tags TEXT, basename TEXT, description TEXT, parent TEXT, path TEXT, default_output_destination TEXT, last_update TEXT);
INSERT INTO "projects" VALUES('291225e0a5824934bf78c49fb7fac7a0','project of before','the administrator''s id',NULL,'d1bd92a3b039400cbafc60a7a5b1e52b','2030-01-01T00:00:00.000000+00:00','[]','[]','project of before','',NULL,'[]',NULL,'2030-01-01T00:00:00.000000+00:00');
CREATE TABLE queue_entries (
    queue TEXT NOT NULL,
    task TEXT NOT NULL,
    added TEXT NOT NULL,
    position INTEGER NOT NULL,
    PRIMARY KEY (queue, task)
) WITHOUT ROWID;
INSERT INTO "queue_entries" VALUES('a3b3a5f995d6493d8be83694a6c3a78e','2cba6548382c4adbbd0dacfb707ce2a2','2030-01-01T00:00:00.000000+00:00',1);
CREATE TABLE queues (id TEXT PRIMARY KEY NOT NULL, name TEXT, user TEXT, made_by TEXT, company TEXT, created TEXT, tags TEXT, system_tags TEXT, display_name TEXT, metadata TEXT, last_update TEXT);
INSERT INTO "queues" VALUES('a3b3a5f995d6493d8be83694a6c3a78e','queue of before','the administrator''s id',NULL,'d1bd92a3b039400cbafc60a7a5b1e52b','2030-01-01T00:00:00.000000+00:00','[]','[]',NULL,NULL,'2030-01-01T00:00:00.000000+00:00');
CREATE TABLE reports (
    task TEXT NOT NULL,
    type TEXT NOT NULL,
    metric TEXT NOT NULL,
    variant TEXT NOT NULL,
    iter INTEGER NOT NULL,
    timestamp INTEGER NOT NULL,
    body TEXT NOT NULL,
    PRIMARY KEY (task, type, metric, variant, iter)
) WITHOUT ROWID;
INSERT INTO "reports" VALUES('2cba6548382c4adbbd0dacfb707ce2a2','plot','confusion','matrix',3,1800000000009,'{"type":"plot","task":"2cba6548382c4adbbd0dacfb707ce2a2","metric":"confusion","variant":"matrix","iter":3,"plot_str":"{\"data\":[]}","timestamp":1800000000009,"worker":"node1"}');
CREATE TABLE scalars (
    task TEXT NOT NULL,
    metric TEXT NOT NULL,
    variant TEXT NOT NULL,
    iter INTEGER NOT NULL,
    timestamp INTEGER NOT NULL,
    value REAL,
    worker TEXT NOT NULL,
    PRIMARY KEY (task, metric, variant, iter)
) WITHOUT ROWID;
INSERT INTO "scalars" VALUES('2cba6548382c4adbbd0dacfb707ce2a2','Summary','best',-2147483648,1800000000009,0.5,'node1');
INSERT INTO "scalars" VALUES('2cba6548382c4adbbd0dacfb707ce2a2','accuracy','validation',0,1800000000000,0.0,'node1');
INSERT INTO "scalars" VALUES('2cba6548382c4adbbd0dacfb707ce2a2','accuracy','validation',1,1800000000001,0.25,'node1');
INSERT INTO "scalars" VALUES('2cba6548382c4adbbd0dacfb707ce2a2','accuracy','validation',2,1800000000002,0.5,'node1');
INSERT INTO "scalars" VALUES('2cba6548382c4adbbd0dacfb707ce2a2','accuracy','validation',3,1800000000003,0.75,'node1');
INSERT INTO "scalars" VALUES('2cba6548382c4adbbd0dacfb707ce2a2','loss','train',0,1800000000000,0.0,'node1');
INSERT INTO "scalars" VALUES('2cba6548382c4adbbd0dacfb707ce2a2','loss','train',1,1800000000001,0.25,'node1');
INSERT INTO "scalars" VALUES('2cba6548382c4adbbd0dacfb707ce2a2','loss','train',2,1800000000002,0.5,'node1');
INSERT INTO "scalars" VALUES('2cba6548382c4adbbd0dacfb707ce2a2','loss','train',3,1800000000003,0.75,'node1');
INSERT INTO "scalars" VALUES('2cba6548382c4adbbd0dacfb707ce2a2','loss','validation',0,1800000000000,0.0,'node1');
INSERT INTO "scalars" VALUES('2cba6548382c4adbbd0dacfb707ce2a2','loss','validation',1,1800000000001,0.25,'node1');
INSERT INTO "scalars" VALUES('2cba6548382c4adbbd0dacfb707ce2a2','loss','validation',2,1800000000002,0.5,'node1');
INSERT INTO "scalars" VALUES('2cba6548382c4adbbd0dacfb707ce2a2','loss','validation',3,1800000000003,0.75,'node1');
CREATE TABLE tasks (id TEXT PRIMARY KEY NOT NULL, name TEXT, user TEXT, made_by TEXT, company TEXT, created TEXT, tags TEXT, system_tags TEXT, type TEXT, project TEXT, parent TEXT, comment TEXT, status TEXT, status_reason TEXT, status_message TEXT, status_changed TEXT, enqueue_status TEXT, started TEXT, completed TEXT, published TEXT, active_duration INTEGER, last_update TEXT, last_change TEXT, last_worker TEXT, last_worker_report TEXT, last_iteration INTEGER, output TEXT, execution TEXT, container TEXT, models TEXT, runtime TEXT, hyperparams TEXT, configuration TEXT, last_metrics TEXT, script TEXT);
INSERT INTO "tasks" VALUES('2cba6548382c4adbbd0dacfb707ce2a2','task of before','the administrator''s id',NULL,'d1bd92a3b039400cbafc60a7a5b1e52b','2030-01-01T00:00:00.000000+00:00','["old"]','[]','training','291225e0a5824934bf78c49fb7fac7a0',NULL,'','queued','','','2030-01-01T00:00:00.000000+00:00','created',NULL,NULL,NULL,NULL,'2030-01-01T00:00:00.000000+00:00','2030-01-01T00:00:00.000000+00:00',NULL,NULL,3,'{}','{"queue":"a3b3a5f995d6493d8be83694a6c3a78e"}','{}','{"input":[],"output":[]}','{}','{}','{}','{"290612199861c31d1036b185b4e69b75":{"db82206b1d49042d1a710e9c88c21d36":{"metric":"Summary","variant":"best","value":0.5,"min_value":0.5,"min_value_iteration":-2147483648,"max_value":0.5,"max_value_iteration":-2147483648}},"81513effdf5790b79549208838404407":{"61b3a8faa9c1091806675c230a9abe64":{"metric":"loss","variant":"train","value":0.75,"min_value":0.0,"min_value_iteration":0,"max_value":0.75,"max_value_iteration":3},"a617908b172c473cb8e8cda059e55bf0":{"metric":"loss","variant":"validation","value":0.75,"min_value":0.0,"min_value_iteration":0,"max_value":0.75,"max_value_iteration":3}},"5d6db9a1dc722586187fc2db530f8388":{"a617908b172c473cb8e8cda059e55bf0":{"metric":"accuracy","variant":"validation","value":0.75,"min_value":0.0,"min_value_iteration":0,"max_value":0.75,"max_value_iteration":3}}}','{}');
CREATE TABLE users (id TEXT PRIMARY KEY NOT NULL, name TEXT, user TEXT, made_by TEXT, company TEXT, created TEXT, tags TEXT, system_tags TEXT, role TEXT, email TEXT);
INSERT INTO "users" VALUES('the administrator''s id','administrator',NULL,NULL,'d1bd92a3b039400cbafc60a7a5b1e52b','2030-01-01T00:00:00.000000+00:00','[]','[]','admin','');
CREATE TABLE workers (id TEXT PRIMARY KEY NOT NULL, user TEXT, made_by TEXT, company TEXT, ip TEXT, register_time TEXT, register_timeout INTEGER, last_activity_time TEXT, last_report_time TEXT, task TEXT, queue TEXT, queues TEXT, tags TEXT, system_tags TEXT, machine_stats TEXT, runtime_properties TEXT);
CREATE INDEX tasks_by_status ON tasks (status, last_update);
CREATE INDEX tasks_by_project ON tasks (project);
CREATE INDEX tasks_by_last_update ON tasks (last_update);
CREATE UNIQUE INDEX projects_by_name ON projects (name);
CREATE INDEX models_by_task ON models (task);
CREATE INDEX queue_entries_by_position ON queue_entries (queue, position);
CREATE INDEX queue_entries_by_task ON queue_entries (task);
CREATE INDEX credentials_by_user ON credentials (user);
CREATE INDEX credentials_by_task ON credentials (task);
CREATE INDEX console_by_time ON console (task, timestamp, id);
COMMIT;
