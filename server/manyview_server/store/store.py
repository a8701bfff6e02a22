"""Everything that must survive, behind one door: `Store.open`, five collections, `close`.

    data_dir/LOCK                        one server per data directory
    data_dir/manyview.sqlite             registry, image index, jobs, event log
    data_dir/datasets/<uid>/shard-*.tar  the images
    data_dir/jobs/<uid>/checkpoints/     the checkpoints
    data_dir/weights/NAME.safetensors    the operator's own weights for plain backbones

All of it is asynchronous on the surface and runs on one database thread beneath.

The signatures:

    Store.open(data_dir, *, reserve_bytes=...) -> Store                    StoreLocked, StoreTooNew, StoreCorrupt
    await store.close()
    store.weights_dir -> Path

    datasets  create(dataset_id) -> Dataset                                AlreadyExists DATASET_EXISTS
              get(dataset_id) -> Dataset                                   NotFound DATASET_NOT_FOUND
              list(page_size, page_token) -> (list[Dataset], next_token)   tokens: opaque text, "" = first, none left
              delete(dataset_id) -> None                                   FailedPrecondition DATASET_IN_USE; unlinks
              images(dataset_id, statuses, page_size, page_token) -> (list[ImageRecord], next_token)
              snapshot(dataset_id, version=None) -> Snapshot
              directory(uid) -> Path                                       not a coroutine
              mark_unreadable(uid, image_id, reason, message) -> bool      False where it was marked before
    uploads   get(dataset_id, upload_id) -> Upload                         NotFound UPLOAD_NOT_FOUND
              open(dataset_id, upload_id, resume_digest) -> UploadSession  FailedPrecondition UPLOAD_CHANGED
              session.upload -> Upload                                     as opened
              session.append(number, images) -> list[ImageOutcome]         durable on return; may be called again before
                                                                           it returns, in order of the numbers
              session.finish(num_images) -> (Upload, Dataset)              FailedPrecondition FINISH_MISMATCH
    jobs      create(train_job_id, dataset_id, method, settings, server_version) -> Job     "" = the store names it
              get(train_job_id) -> Job                                     NotFound TRAIN_JOB_NOT_FOUND
              list(page_size, page_token) -> (list[Job], next_token)       newest first
              delete(train_job_id) -> None                                 FailedPrecondition STATE_CONFLICT; unlinks
              request_cancel(train_job_id) -> Job                          QUEUED -> CANCELLED, else -> CANCELLING
              transition(train_job_id, expected, to, *, reason, message, hint, attempt, restarts) -> Job    Aborted STATE_CONFLICT
              set_resolved(train_job_id, settings) -> None
              report_progress(train_job_id, Progress) -> None              not a coroutine; written with the next event
              next_queued() -> Job | None                                  the oldest QUEUED one
              unfinished() -> list[Job]                                    all that are not terminal, oldest first
              add_checkpoint(train_job_id, step=, epoch=, attempt=, directory=, num_bytes=, model=) -> Checkpoint
              checkpoints(train_job_id | None) -> list[Checkpoint]         newest first
              checkpoint(train_job_id, step | None) -> Checkpoint          None: the newest; NotFound MODEL_NOT_FOUND
              pin_checkpoint(train_job_id, step) -> None
              drop_checkpoint(train_job_id, step) -> None                  the row, then the directory
              checkpoint_directory(uid) -> Path                            not a coroutine; jobs/<uid>/checkpoints
    events    append(train_job_id, list[NewEvent]) -> None                 scalars alone: returns at once
              read(train_job_id, after, limit) -> list[Event]              OutOfRange SEQUENCE_EXPIRED, SEQUENCE_AHEAD
              wait(train_job_id, after, timeout_s) -> bool                 True where something newer than `after` is there
              last_sequence(train_job_id) -> int;  oldest(train_job_id) -> int
              rollback(train_job_id, to_step, attempt) -> Event
              scalar_rows(train_job_id, names) -> list[Event]              without those that a rollback superseded
              tail_logs(train_job_id, num_lines) -> list[Event]            the newest log events, in order
    requests  once(request_id, method, body_hash, fn) -> bytes             AlreadyExists REQUEST_ID_REUSED
"""
