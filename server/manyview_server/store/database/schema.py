"""The database's tables, as a list of migrations.

`user_version` counts the migrations that were applied. Never edit a migration that was released. Append another one.
"""

MIGRATIONS: tuple[str, ...] = (
    """
    CREATE TABLE dataset (
        pk INTEGER PRIMARY KEY AUTOINCREMENT,
        dataset_id TEXT NOT NULL UNIQUE,
        uid TEXT NOT NULL UNIQUE,
        create_time REAL NOT NULL,
        num_images INTEGER NOT NULL DEFAULT 0,
        num_bytes INTEGER NOT NULL DEFAULT 0,
        num_labels INTEGER NOT NULL DEFAULT 0,
        num_labelled INTEGER NOT NULL DEFAULT 0,
        num_rejected INTEGER NOT NULL DEFAULT 0,
        num_unreadable INTEGER NOT NULL DEFAULT 0,
        -- Where the committed bytes end: what lies beyond in the shards was never acknowledged.
        shard INTEGER NOT NULL DEFAULT 0,
        shard_bytes INTEGER NOT NULL DEFAULT 0
    );

    -- Positions are 1, 2, 3, … in the order of the commits; a snapshot is a prefix of them.
    -- (upload, batch) says which batch brought the image, so that a batch that is sent again gets the same answer.
    CREATE TABLE image (
        dataset INTEGER NOT NULL,
        position INTEGER NOT NULL,
        image_id INTEGER NOT NULL,
        shard INTEGER NOT NULL,
        offset INTEGER NOT NULL,
        length INTEGER NOT NULL,
        label INTEGER NOT NULL,
        width INTEGER NOT NULL,
        height INTEGER NOT NULL,
        key TEXT NOT NULL,
        upload INTEGER NOT NULL,
        batch INTEGER NOT NULL,
        PRIMARY KEY (dataset, position)
    ) WITHOUT ROWID;
    CREATE UNIQUE INDEX image_by_id ON image (dataset, image_id);

    -- Ordinals are given in the order in which labels first appear, -1 means none.
    CREATE TABLE label (
        dataset INTEGER NOT NULL,
        ordinal INTEGER NOT NULL,
        name TEXT NOT NULL,
        PRIMARY KEY (dataset, ordinal)
    ) WITHOUT ROWID;
    CREATE UNIQUE INDEX label_by_name ON label (dataset, name);

    CREATE TABLE rejected (
        dataset INTEGER NOT NULL,
        ordinal INTEGER NOT NULL,
        key TEXT NOT NULL,
        label TEXT NOT NULL,
        reason TEXT NOT NULL,
        message TEXT NOT NULL,
        num_bytes INTEGER NOT NULL,
        PRIMARY KEY (dataset, ordinal)
    ) WITHOUT ROWID;

    CREATE TABLE unreadable (
        dataset INTEGER NOT NULL,
        position INTEGER NOT NULL,
        reason TEXT NOT NULL,
        message TEXT NOT NULL,
        PRIMARY KEY (dataset, position)
    ) WITHOUT ROWID;

    CREATE TABLE upload (
        pk INTEGER PRIMARY KEY AUTOINCREMENT,
        dataset INTEGER NOT NULL,
        upload_id TEXT NOT NULL,
        committed_number INTEGER NOT NULL DEFAULT 0,
        num_images INTEGER NOT NULL DEFAULT 0,
        num_stored INTEGER NOT NULL DEFAULT 0,
        num_duplicates INTEGER NOT NULL DEFAULT 0,
        num_rejected INTEGER NOT NULL DEFAULT 0,
        finished INTEGER NOT NULL DEFAULT 0,
        digest BLOB NOT NULL DEFAULT x'',
        UNIQUE (dataset, upload_id)
    );

    CREATE TABLE job (
        pk INTEGER PRIMARY KEY AUTOINCREMENT,
        train_job_id TEXT NOT NULL UNIQUE,
        uid TEXT NOT NULL UNIQUE,
        dataset_id TEXT NOT NULL,
        dataset_uid TEXT NOT NULL,
        num_images INTEGER NOT NULL,
        method TEXT NOT NULL,
        settings TEXT NOT NULL,
        state TEXT NOT NULL,
        desired TEXT NOT NULL DEFAULT 'run',
        failure TEXT NOT NULL DEFAULT '',
        progress TEXT NOT NULL DEFAULT '{}',
        create_time REAL NOT NULL,
        start_time REAL NOT NULL DEFAULT 0,
        end_time REAL NOT NULL DEFAULT 0,
        attempt INTEGER NOT NULL DEFAULT 0,
        restarts INTEGER NOT NULL DEFAULT 0,
        oldest_sequence INTEGER NOT NULL DEFAULT 1,
        last_sequence INTEGER NOT NULL DEFAULT 0,
        latest_checkpoint INTEGER NOT NULL DEFAULT -1,
        server_version TEXT NOT NULL
    );
    CREATE INDEX job_by_state ON job (state);

    CREATE TABLE event (
        job INTEGER NOT NULL,
        sequence INTEGER NOT NULL,
        time REAL NOT NULL,
        attempt INTEGER NOT NULL,
        step INTEGER NOT NULL,
        epoch INTEGER NOT NULL,
        kind TEXT NOT NULL,
        payload TEXT NOT NULL,
        PRIMARY KEY (job, sequence)
    ) WITHOUT ROWID;
    -- Everything but scalars is rare, and is looked for by kind.
    CREATE INDEX event_by_kind ON event (job, kind, sequence) WHERE kind <> 'scalars';

    CREATE TABLE checkpoint (
        job INTEGER NOT NULL REFERENCES job (pk) ON DELETE CASCADE,
        step INTEGER NOT NULL,
        epoch INTEGER NOT NULL,
        attempt INTEGER NOT NULL,
        directory TEXT NOT NULL,
        num_bytes INTEGER NOT NULL,
        create_time REAL NOT NULL,
        pinned INTEGER NOT NULL DEFAULT 0,
        model TEXT NOT NULL,
        PRIMARY KEY (job, step)
    ) WITHOUT ROWID;

    CREATE TABLE request (
        request_id TEXT PRIMARY KEY,
        method TEXT NOT NULL,
        body_hash BLOB NOT NULL,
        reply BLOB NOT NULL,
        time REAL NOT NULL
    ) WITHOUT ROWID;
    CREATE INDEX request_by_time ON request (time);

    -- What was deleted but is still being removed: rows of this data set or job, and then the directory.
    CREATE TABLE trash (
        pk INTEGER PRIMARY KEY,
        directory TEXT NOT NULL,
        dataset INTEGER NOT NULL DEFAULT 0,
        job INTEGER NOT NULL DEFAULT 0
    );
    """,
    """
    ALTER TABLE job ADD COLUMN continued_from TEXT NOT NULL DEFAULT '';
    ALTER TABLE job ADD COLUMN min_images INTEGER NOT NULL DEFAULT 0;
    """,
    """
    CREATE INDEX image_by_key ON image (dataset, key) WHERE key <> '';
    """,
    """
    -- One row. The generation is raised at each start and never falls: see `generation`.
    CREATE TABLE store (
        uid TEXT NOT NULL,
        generation INTEGER NOT NULL,
        -- The most that one group of batches can have added, as the server that ran last was configured.
        max_group_images INTEGER NOT NULL,
        max_group_bytes INTEGER NOT NULL
    );
    INSERT INTO store VALUES (lower(hex(randomblob(16))), 0, 65536, 536870912);
    """,
    """
    -- Did an upload create the data set? Then it is removed again if it is empty when all uploads to it have finished.
    ALTER TABLE dataset ADD COLUMN created_by_upload INTEGER NOT NULL DEFAULT 0;
    """,
)
