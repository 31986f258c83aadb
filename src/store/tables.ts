/** The tables as the query builder sees them. The migrations make them; a test compares both. */
import { integer, primaryKey, real, sqliteTable, text } from 'drizzle-orm/sqlite-core'

export const goodCells = sqliteTable('good_cell', {
  cell: text('cell').primaryKey(),
  value: text('value').notNull(),
})

export const lines = sqliteTable(
  'line',
  {
    kind: text('kind').notNull(),
    id: text('id').notNull(),
    about: text('about').notNull(),
  },
  (table) => [primaryKey({ columns: [table.kind, table.id] })],
)

export const samples = sqliteTable('sample', {
  fingerprint: text('fingerprint').primaryKey(),
  label: text('label', { enum: ['spam', 'ham'] }).notNull(),
  learntMs: integer('learnt_ms').notNull(),
})

export const held = sqliteTable('held', {
  id: text('id').primaryKey(),
  owner: text('owner').notNull(),
  heldMs: integer('held_ms').notNull(),
  expiresMs: integer('expires_ms').notNull(),
  sender: text('sender').notNull(),
  subject: text('subject'),
  from: text('from_header'),
  foldedSubject: text('folded_subject'),
  foldedFrom: text('folded_from'),
  clientIp: text('client_ip').notNull(),
  sizeBytes: integer('size_bytes').notNull(),
  score: real('score').notNull(),
  rules: text('rules').notNull(),
  unknownCount: integer('unknown_count').notNull(),
  reasons: text('reasons').notNull(),
  undecided: integer('undecided').notNull(),
  decidedMs: integer('decided_ms'),
  bodyGoneMs: integer('body_gone_ms'),
  term: integer('term').notNull(),
  holders: text('holders').notNull(),
  perhaps: text('perhaps').notNull(),
  doubtMs: integer('doubt_ms'),
})

export const heldCopies = sqliteTable(
  'held_copy',
  {
    id: text('id').notNull(),
    place: integer('place').notNull(),
    address: text('address').notNull(),
    kind: text('kind', { enum: ['release', 'delete', 'expire'] }),
    decidedBy: text('decided_by'),
    decidedMs: integer('decided_ms'),
    enqueuedMs: integer('enqueued_ms'),
  },
  (table) => [primaryKey({ columns: [table.id, table.place] })],
)

export const heldPending = sqliteTable('held_pending', {
  id: text('id').notNull(),
  place: integer('place').notNull(),
  key: text('key').primaryKey(),
  kind: text('kind', { enum: ['release', 'delete'] }).notNull(),
  askedBy: text('asked_by').notNull(),
  askedMs: integer('asked_ms').notNull(),
  addressee: text('addressee').notNull(),
  stamp: integer('stamp').notNull(),
  former: text('former', { enum: ['claimed', 'sent', 'perhaps'] }),
})

export const heldFormer = sqliteTable(
  'held_former',
  {
    id: text('id').notNull(),
    place: integer('place').notNull(),
    kind: text('kind', { enum: ['release', 'delete', 'expire'] }).notNull(),
    decidedBy: text('decided_by').notNull(),
    decidedMs: integer('decided_ms').notNull(),
    sent: integer('sent').notNull(),
  },
  (table) => [primaryKey({ columns: [table.id, table.place] })],
)

export const trace = sqliteTable(
  'trace',
  {
    id: text('id').notNull(),
    place: integer('place').notNull(),
    atMs: integer('at_ms').notNull(),
    clientIp: text('client_ip').notNull(),
    sender: text('sender').notNull(),
    recipient: text('recipient').notNull(),
    subject: text('subject'),
    folded: text('folded'),
    sizeBytes: integer('size_bytes').notNull(),
    score: real('score').notNull(),
    rules: text('rules').notNull(),
    unknownCount: integer('unknown_count').notNull(),
    accept: text('accept', {
      enum: ['accepted', 'held', 'rejected', 'deferred', 'refused'],
    }).notNull(),
    acceptReply: text('accept_reply').notNull(),
    delivery: text('delivery', {
      enum: [
        'queued',
        'deferred',
        'inDoubt',
        'delivered',
        'bounced',
        'dropped',
        'held',
        'released',
        'deleted',
        'expired',
      ],
    }),
    deliveryReply: text('delivery_reply'),
    deliveryMs: integer('delivery_ms'),
    releasedMs: integer('released_ms'),
    node: text('node').notNull(),
    version: integer('version').notNull(),
  },
  (table) => [primaryKey({ columns: [table.id, table.place] })],
)

export const traceEvents = sqliteTable(
  'trace_event',
  {
    id: text('id').notNull(),
    writer: text('writer').notNull(),
    dot: integer('dot').notNull(),
    seq: integer('seq').notNull(),
    atMs: integer('at_ms').notNull(),
    recipient: text('recipient'),
    what: text('what').notNull(),
    detail: text('detail').notNull(),
  },
  (table) => [primaryKey({ columns: [table.id, table.writer, table.dot, table.seq] })],
)

export const judgements = sqliteTable('judgement', {
  id: text('id').primaryKey(),
  said: text('said').notNull(),
})

export const sightings = sqliteTable(
  'sighting',
  {
    id: text('id').notNull(),
    what: integer('what').notNull(),
  },
  (table) => [primaryKey({ columns: [table.id, table.what] })],
)
