/**
 * The history of every message and recipient, of all nodes. Writing is hot and mail never waits
 * for it: rows go to a bounded buffer, and one transaction takes what 200 ms have brought. How the
 * history of other nodes comes in is in trace-feed.ts.
 */
import type { Statement } from 'bun:sqlite'
import { and, asc, desc, eq, inArray, type SQL, sql } from 'drizzle-orm'
import type { Clock, Timer } from '../base/clock.ts'
import { RefusalError, StoreError } from '../base/errors.ts'
import { type MessageId, type NodeId, parseMessageId } from '../base/ids.ts'
import { LIST_MAX } from '../base/limits.ts'
import type { Observer } from '../base/observe.ts'
import type { Random } from '../base/random.ts'
import type {
  AcceptState,
  DeliveryState,
  Judgement,
  NewTraceRow,
  NodeName,
  TraceEvent,
  TraceRow,
} from '../message/rows.ts'
import { conditionOf, contains, foldedOrNull, idFloor, type Searchable } from './conditions.ts'
import type { StoreDatabase } from './db.ts'
import { type NodeNames, nodeName, nodesNamed } from './names.ts'
import type { Query, State } from './query.ts'
import { judgements, sightings, trace, traceEvents } from './tables.ts'
import { TraceFeed, WRITE_LINES_MAX } from './trace-feed.ts'
import { partOf } from './trace-part.ts'

const FLUSH_MS = 200
/** Buffered rows and events that are written without waiting for the time. */
const FLUSH_ROWS = 250
/** Rows and events in the buffer while the database does not take them; about 500 bytes each. */
const BUFFER_MAX = 40_000
/** Wait after a flush that failed. */
const FAILED_MS = 5_000
/** Rows written after which the log is moved into the database even when mail is busy: ~40 MB. */
const CHECKPOINT_ROWS = 20_000
/** Silence after which that is done for fewer. */
const QUIET_MS = 2_000

/** Counting stops here: a `total` above it means "more than 10,000". */
export const COUNT_MAX = 10_000

export type TraceMessage = {
  readonly rows: readonly TraceRow[]
  readonly events: readonly TraceEvent[]
  readonly judgement: Judgement | null
}

export type Found<Row> = {
  readonly rows: readonly Row[]
  /** Exact up to COUNT_MAX; COUNT_MAX + 1 means more. */
  readonly total: number
  readonly cursor: string | null
}

/** What became of a recipient, in the words of the first screen. */
export type Standing = 'delivered' | 'held' | 'rejected' | 'deferred' | 'waiting' | 'bounced'

export type Numbers = {
  readonly counts: Readonly<Record<Standing, number>>
  /** Oldest first; `deferred` counts what waits too. */
  readonly series: readonly {
    readonly atMs: number
    readonly delivered: number
    readonly held: number
    readonly rejected: number
    readonly deferred: number
  }[]
  readonly topRules: readonly { readonly rule: string; readonly count: number }[]
  readonly topSenders: readonly { readonly sender: string; readonly count: number }[]
}

/** The first screen counts a message that took longer than this from its id on by its id. */
const LATE_MS = 3_600_000
const BUCKETS_MAX = 500
const TOP_MAX = 10

type Change = {
  readonly state: DeliveryState
  readonly reply: string | null
  readonly atMs: number
}

type PendingEvent = { readonly part: number; readonly seq: number; readonly event: TraceEvent }

/** What is not written yet of one message. */
type Pending = {
  rows: { readonly place: number; readonly row: NewTraceRow }[]
  judgement: Judgement | null
  readonly events: PendingEvent[]
  /** By place. */
  readonly changes: Map<number, Change>
  releasedMs: Map<number, number>
  size: number
}

export class Trace {
  /** What peers read along. */
  readonly feed: TraceFeed
  readonly #store: StoreDatabase
  readonly #clock: Clock
  readonly #observer: Observer
  readonly #node: NodeName
  readonly #nodes: NodeNames
  readonly #pending = new Map<MessageId, Pending>()
  readonly #statements: ReturnType<typeof prepare>
  #size = 0
  #seq = 0
  #timer: Timer | null = null
  #quiet: Timer | null = null
  #sinceCheckpoint = 0
  /** The timer was already shortened because the buffer is full enough. */
  #full = false
  #closed = false
  #kept: { readonly key: string; readonly numbers: Numbers; readonly untilMs: number } | null = null

  /**
   * `node` is this one; `nodes` names all of them. `keepMs`: how long history is kept; what is
   * older is not taken from peers. @throws StoreError
   */
  constructor(
    store: StoreDatabase,
    deps: {
      readonly clock: Clock
      readonly random: Random
      readonly observer: Observer
      readonly node: NodeName
      readonly nodes?: NodeNames
      readonly keepMs: () => number
    },
  ) {
    const { clock, random, keepMs, node } = deps
    this.#store = store
    this.#clock = clock
    this.#observer = deps.observer
    this.#node = node
    this.#nodes = deps.nodes ?? (() => [node])
    this.#statements = prepare(store)
    this.feed = new TraceFeed(store, {
      clock,
      random,
      keepMs,
      wrote: (rows) => {
        this.#sinceCheckpoint += rows
        this.#planCheckpoint()
      },
    })
  }

  /**
   * Remembers what happened to a message at the door. `rows` are all of one message, in the order
   * of `Envelope.recipients`; their index is the place that `outcome` names. Rows recorded one
   * after the other for one id stand after each other. Never waits, never throws.
   */
  record(
    rows: readonly NewTraceRow[],
    events: readonly TraceEvent[],
    judgement: Judgement | null,
  ): void {
    const first = rows[0]
    if (first === undefined) return
    const pending = this.#of(first.id)
    for (const row of rows) pending.rows.push({ place: pending.rows.length, row })
    pending.judgement ??= judgement
    this.#grow(pending, rows.length)
    for (const event of events) this.#event(pending, 0, event)
    this.#soon()
  }

  /**
   * Remembers what became of one recipient. `reply`: the last reply of a next hop or who decided,
   * null keeps the one before. `event` null: no line in the history. Never waits, never throws.
   */
  outcome(
    id: MessageId,
    place: number,
    state: DeliveryState,
    reply: string | null,
    event: TraceEvent | null,
  ): void {
    const pending = this.#of(id)
    const before = pending.changes.get(place)
    const atMs = event?.atMs ?? this.#clock.wallMs()
    pending.changes.set(place, { state, reply: reply ?? before?.reply ?? null, atMs })
    if (before === undefined) this.#grow(pending, 1)
    if (state === 'released') pending.releasedMs.set(place, atMs)
    if (event !== null) this.#event(pending, partOf(place), event)
    this.#soon()
  }

  /** Adds a line to the history of a message. Never waits, never throws. */
  note(id: MessageId, event: TraceEvent): void {
    this.#event(this.#of(id), 0, event)
    this.#soon()
  }

  /** Writes all that is buffered. A database that refuses leaves it for later; no throw. */
  flush(): void {
    this.#timer?.cancel()
    this.#timer = null
    this.#full = false
    while (this.#pending.size > 0) if (!this.#writeSome()) return
  }

  /** Newest first. @throws RefusalError for a cursor that is none; StoreError */
  search(
    query: Query,
    page: { readonly limit: number; readonly cursor: string | null },
  ): Found<TraceRow> {
    this.flush()
    const limit = Math.min(Math.max(1, Math.floor(page.limit) || 1), LIST_MAX)
    const condition = conditionOf(query, this.#searchable())
    const from = page.cursor === null ? undefined : afterCursor(page.cursor)
    return this.#store.attempt(() => {
      const found = this.#store.query
        .select()
        .from(trace)
        .where(and(condition, from))
        .orderBy(desc(trace.id), desc(trace.place))
        .limit(limit + 1)
        .all()
      const rows = found.slice(0, limit)
      const last = rows.at(-1)
      const more = found.length > limit && last !== undefined
      const total =
        page.cursor === null && !more ? rows.length : this.#store.count(trace, COUNT_MAX, condition)
      return {
        rows: rows.map((row) => this.#rowOf(row)),
        total,
        cursor: more ? `${last.id}.${last.place}` : null,
      }
    })
  }

  /** All that is known of one message; no rows when it is not known. @throws StoreError */
  message(id: MessageId): TraceMessage {
    this.flush()
    return this.#store.attempt(() => {
      const { query } = this.#store
      const rows = query
        .select()
        .from(trace)
        .where(eq(trace.id, id))
        .orderBy(asc(trace.place))
        .limit(LIST_MAX)
        .all()
      const events = query
        .select()
        .from(traceEvents)
        .where(eq(traceEvents.id, id))
        .orderBy(asc(traceEvents.seq), asc(traceEvents.writer))
        .limit(LIST_MAX)
        .all()
      const judgement = query.select().from(judgements).where(eq(judgements.id, id)).get()
      return {
        rows: rows.map((row) => this.#rowOf(row)),
        events: events.map(({ atMs, recipient, what, detail }) => ({
          atMs,
          recipient,
          what,
          detail,
        })),
        judgement: judgement === undefined ? null : (JSON.parse(judgement.said) as Judgement),
      }
    })
  }

  /**
   * Counts of recipients since `sinceMs`, whole and in `buckets` equal parts of the time, with
   * the rules and senders of what was held or rejected. An answer that took long is given again
   * for a while: however many ask, they take a twentieth of the loop. @throws StoreError
   */
  overview(sinceMs: number, buckets: number): Numbers {
    const parts = Math.min(Math.max(1, Math.floor(buckets) || 1), BUCKETS_MAX)
    const askedMs = this.#clock.monoMs()
    const key = `${Math.round((this.#clock.wallMs() - sinceMs) / 60_000)} ${parts}`
    const kept = this.#kept
    if (kept !== null && kept.key === key && askedMs < kept.untilMs) return kept.numbers
    this.flush()
    const numbers = this.#store.attempt(() => this.#numbers(sinceMs, parts))
    const tookMs = this.#clock.monoMs() - askedMs
    this.#kept = { key, numbers, untilMs: askedMs + tookMs * 20 }
    return numbers
  }

  /**
   * Whether a message that came from `fromMs` on and before `beforeMs` shows that (store/sightings).
   * @throws StoreError
   */
  saw(what: number, fromMs: number, beforeMs: number): boolean {
    return this.#store.attempt(
      () => this.#statements.saw.get(what, idFloor(fromMs), idFloor(beforeMs)) !== null,
    )
  }

  /**
   * Deletes messages older than `beforeMs`, at most `limit` of them so that nothing waits long.
   * Gives how many went; call again while it is `limit`. @throws StoreError
   */
  prune(beforeMs: number, limit: number): number {
    return this.#store.transact(() => {
      const floor = idFloor(beforeMs)
      this.feed.prune(floor)
      const last = this.#statements.oldest.get(floor, limit)
      if (last === null) return 0
      this.#statements.pruneJudgements.run(last.id)
      this.#statements.pruneSightings.run(last.id)
      this.#statements.pruneEvents.run(last.id)
      this.#statements.pruneTrace.run(last.id)
      return last.count
    })
  }

  /** Writes the rest and stops. The database stays open: its opener closes it. */
  close(): void {
    this.flush()
    this.#closed = true
    this.#timer?.cancel()
    this.#quiet?.cancel()
  }

  #of(id: MessageId): Pending {
    const there = this.#pending.get(id)
    if (there !== undefined) return there
    const pending: Pending = {
      rows: [],
      judgement: null,
      events: [],
      changes: new Map(),
      releasedMs: new Map(),
      size: 0,
    }
    this.#pending.set(id, pending)
    return pending
  }

  #event(pending: Pending, part: number, event: TraceEvent): void {
    // Ordered by time also across restarts, and never equal within one.
    this.#seq = Math.max(this.#seq + 1, this.#clock.wallMs() * 1_024)
    pending.events.push({ part, seq: this.#seq, event })
    this.#grow(pending, 1)
  }

  #grow(pending: Pending, by: number): void {
    pending.size += by
    this.#size += by
    while (this.#size > BUFFER_MAX && this.#pending.size > 1) this.#dropOldest()
  }

  #dropOldest(): void {
    for (const [id, oldest] of this.#pending) {
      this.#pending.delete(id)
      this.#size -= oldest.size
      this.#observer.emit('trace.dropped', { message: id, rows: oldest.size })
      return
    }
  }

  #soon(): void {
    if (this.#closed || this.#pending.size === 0) return
    // Never written here: the caller is on the path of a mail.
    if (this.#timer === null) {
      this.#timer = this.#clock.after(this.#size >= FLUSH_ROWS ? 0 : FLUSH_MS, () =>
        this.#onTimer(),
      )
    } else if (this.#size >= FLUSH_ROWS && !this.#full) {
      this.#full = true
      this.#timer.cancel()
      this.#timer = this.#clock.after(0, () => this.#onTimer())
    }
  }

  #numbers(sinceMs: number, parts: number): Numbers {
    const lengthMs = Math.max(1, this.#clock.wallMs() + 1 - sinceMs) / parts
    const { classes, rules, senders } = this.#statements
    const floor = idFloor(sinceMs - LATE_MS)
    const counts = { delivered: 0, held: 0, rejected: 0, deferred: 0, waiting: 0, bounced: 0 }
    const series = Array.from({ length: parts }, (_, index) => ({
      atMs: Math.floor(sinceMs + index * lengthMs),
      delivered: 0,
      held: 0,
      rejected: 0,
      deferred: 0,
    }))
    for (const { state, part, count } of classes.all(sinceMs, lengthMs, floor, sinceMs)) {
      counts[state] += count
      const bucket = series[Math.min(part, parts - 1)]
      if (bucket === undefined || state === 'bounced') continue
      bucket[state === 'waiting' ? 'deferred' : state] += count
    }
    return {
      counts,
      series,
      topRules: topRules(rules.all(floor, sinceMs)),
      topSenders: senders.all(floor, sinceMs),
    }
  }

  /** One transaction; what piled up takes several, so that none stops the loop for long. */
  #onTimer(): void {
    this.#timer = null
    this.#full = false
    if (this.#writeSome()) this.#soon()
  }

  /** False: the database refused. The store has observed it, and a timer runs. */
  #writeSome(): boolean {
    const written: MessageId[] = []
    let rows = 0
    try {
      this.feed.write(() => {
        for (const [id, pending] of this.#pending) {
          if (rows > 0 && rows + pending.size > FLUSH_ROWS) break
          this.#write(id, pending)
          written.push(id)
          rows += pending.size
        }
        return rows
      })
    } catch (error) {
      if (!(error instanceof StoreError)) throw error
      this.#timer?.cancel()
      if (!this.#closed) this.#timer = this.#clock.after(FAILED_MS, () => this.#onTimer())
      return false
    }
    for (const id of written) this.#pending.delete(id)
    this.#size -= rows
    return true
  }

  #write(id: MessageId, pending: Pending): void {
    const { update } = this.#statements
    const { rows, changes, events, judgement, releasedMs } = pending
    /** By part; nearly always there is one. */
    const touched: boolean[] = []
    for (const { place, row } of rows) {
      touched[partOf(place)] = true
      this.#insert(id, place, row, pending)
    }
    for (const [place, { state, reply, atMs }] of changes) {
      touched[partOf(place)] = true
      // Written with its row: those of a message stand at the places from 0 on.
      if (place < rows.length) continue
      const released = releasedMs.get(place) ?? null
      update.run(state, reply, atMs, atMs, released, id, place, state)
    }
    if (judgement !== null) {
      touched[0] = true
      this.feed.judge(id, JSON.stringify(judgement), judgement)
    }
    if (judgement?.author !== undefined) {
      const taken = rows.filter(({ row }) => row.accept === 'accepted').map(({ row }) => row)
      this.feed.met(id, judgement.author, taken)
    }
    if (releasedMs.size > 0) this.feed.meet(id)
    for (const { part } of events) touched[part] = true
    const isOne = touched.length === 1
    for (const [part, isTouched] of touched.entries()) {
      if (isTouched)
        this.#log(id, part, isOne ? events : events.filter((event) => event.part === part))
    }
  }

  #insert(id: MessageId, place: number, row: NewTraceRow, pending: Pending): void {
    const change = pending.changes.get(place)
    const deliveryMs = change?.atMs ?? row.deliveryMs
    const delivery = change?.state ?? row.delivery
    const deliveryReply = change?.reply ?? row.deliveryReply
    const rules = row.rules.length === 0 ? '' : ` ${row.rules.join(' ')} `
    const unknownCount = pending.judgement?.unknowns.length ?? 0
    const releasedMs = pending.releasedMs.get(place) ?? null
    const version = deliveryMs ?? row.atMs
    const { changes } = this.#statements.insert.run(
      id,
      place,
      row.atMs,
      row.clientIp,
      row.sender,
      row.recipient,
      row.subject,
      foldedOrNull(row.subject),
      row.sizeBytes,
      row.score,
      rules,
      unknownCount,
      row.accept,
      row.acceptReply,
      delivery,
      deliveryReply,
      deliveryMs,
      releasedMs,
      this.#node.id,
      version,
    )
    if (changes > 0) return
    // Recorded before (a notification that is made again): what is known already joins it.
    const { id: _, rules: __, ...facts } = row
    const more = { node: this.#node.id, rules, unknownCount, delivery, deliveryReply, deliveryMs }
    this.feed.mergeRow({ ...facts, ...more, id, place, releasedMs, version })
  }

  /** One write of a part, or several where it has many lines. */
  #log(id: MessageId, part: number, lines: readonly PendingEvent[]): void {
    const { writer } = this.feed
    let dot = this.feed.log(id, part)
    for (const [index, { seq, event }] of lines.entries()) {
      if (index > 0 && index % WRITE_LINES_MAX === 0) dot = this.feed.log(id, part)
      const { atMs, recipient, what, detail } = event
      this.#statements.event.run(id, writer, dot, seq, atMs, recipient, what, detail)
    }
  }

  #planCheckpoint(): void {
    if (this.#sinceCheckpoint >= CHECKPOINT_ROWS) return this.#checkpoint()
    this.#quiet?.cancel()
    this.#quiet = this.#closed ? null : this.#clock.after(QUIET_MS, () => this.#checkpoint())
  }

  #checkpoint(): void {
    this.#sinceCheckpoint = 0
    try {
      this.#store.checkpoint('PASSIVE')
    } catch (error) {
      if (!(error instanceof StoreError)) throw error
    }
  }

  #searchable(): Searchable {
    return {
      id: trace.id,
      atMs: trace.atMs,
      from: [trace.sender],
      to: (pattern) => contains(trace.recipient, pattern),
      subject: sql`coalesce(${trace.folded}, ${trace.subject}, '')`,
      ip: trace.clientIp,
      rules: trace.rules,
      seen: (what) =>
        sql`${trace.id} IN (SELECT ${sightings.id} FROM ${sightings} WHERE ${sightings.what} = ${what})`,
      score: trace.score,
      sizeBytes: trace.sizeBytes,
      state: stateCondition,
      node: (text) => inArray(trace.node, nodesNamed(this.#nodes, text)),
    }
  }

  #rowOf(stored: Stored): TraceRow {
    return {
      // Only ids of nodes are ever written, here and by peers.
      id: stored.id as MessageId,
      node: nodeName(this.#nodes, stored.node as NodeId),
      atMs: stored.atMs,
      clientIp: stored.clientIp,
      sender: stored.sender,
      recipient: stored.recipient,
      subject: stored.subject,
      sizeBytes: stored.sizeBytes,
      score: stored.score,
      rules: splitRules(stored.rules),
      accept: stored.accept satisfies AcceptState,
      acceptReply: stored.acceptReply,
      delivery: stored.delivery satisfies DeliveryState | null,
      deliveryReply: stored.deliveryReply,
      deliveryMs: stored.deliveryMs,
    }
  }
}

function stateCondition(state: State): SQL {
  const delivery = sql`ifnull(${trace.delivery}, '')`
  switch (state) {
    case 'held':
      return sql`${delivery} = 'held'`
    case 'delivered':
      return sql`${delivery} = 'delivered'`
    case 'rejected':
      return sql`${trace.accept} in ('rejected', 'refused')`
    case 'deferred':
      return sql`(${trace.accept} = 'deferred' or ${delivery} = 'deferred')`
    case 'waiting':
      return sql`${delivery} in ('queued', 'deferred', 'inDoubt', 'released')`
    case 'unknown':
      return sql`${trace.unknownCount} > 0`
    case 'released':
      return sql`${trace.releasedMs} is not null`
    case 'bounced':
      return sql`${delivery} = 'bounced'`
    case 'deleted':
      return sql`${delivery} in ('deleted', 'expired', 'dropped')`
  }
}

function afterCursor(cursor: string): SQL {
  const [, id = '', place = ''] = /^([0-9a-z]{26})\.(\d{1,6})$/.exec(cursor) ?? []
  if (parseMessageId(id) === null) throw badCursor()
  return sql`(${trace.id}, ${trace.place}) < (${id}, ${Number(place)})`
}

export function badCursor(): RefusalError {
  return new RefusalError(
    'invalid',
    'cursor',
    'The cursor is not one that this list gave.',
    'Begin again without a cursor.',
  )
}

type Stored = typeof trace.$inferSelect

export function splitRules(rules: string): readonly string[] {
  return rules.split(' ').filter((rule) => rule !== '')
}

/** Sums of single rules out of counts of sets of rules; the most frequent first. */
function topRules(
  sets: readonly { readonly rules: string; readonly count: number }[],
): Numbers['topRules'] {
  const counts = new Map<string, number>()
  for (const { rules, count } of sets) {
    for (const rule of splitRules(rules)) counts.set(rule, (counts.get(rule) ?? 0) + count)
  }
  return [...counts]
    .map(([rule, count]) => ({ rule, count }))
    .sort((a, b) => b.count - a.count || (a.rule < b.rule ? -1 : 1))
    .slice(0, TOP_MAX)
}

/** The standing of a row, or null when it is none of the six. The door comes first. */
const STANDING = `CASE
  WHEN accept IN ('rejected', 'refused') THEN 'rejected'
  WHEN accept = 'deferred' THEN 'deferred'
  WHEN delivery IN ('delivered', 'held', 'bounced') THEN delivery
  WHEN delivery IN ('queued', 'deferred', 'inDoubt', 'released') THEN 'waiting'
END`

/** What was kept away: the rules and senders of these are worth a list. */
const UNWANTED = `(accept IN ('rejected', 'refused', 'held'))`

/** The hot statements, without the query builder: it costs more than SQLite does. */
function prepare({ sqlite }: StoreDatabase) {
  const oldest: Statement<{ id: string; count: number }, [string, number]> = sqlite.prepare(
    `SELECT max(id) AS id, count(*) AS count
     FROM (SELECT DISTINCT id FROM trace WHERE id < ? ORDER BY id LIMIT ?) HAVING count(*) > 0`,
  )
  const classes: Statement<
    { state: Standing; part: number; count: number },
    [sinceMs: number, lengthMs: number, floor: string, sinceMs: number]
  > = sqlite.prepare(
    `SELECT ${STANDING} AS state, CAST((at_ms - ?) / ? AS INTEGER) AS part, count(*) AS count
     FROM trace WHERE id >= ? AND at_ms >= ? AND ${STANDING} IS NOT NULL GROUP BY 1, 2`,
  )
  const rules: Statement<{ rules: string; count: number }, [string, number]> = sqlite.prepare(
    `SELECT rules, count(*) AS count FROM trace
     WHERE id >= ? AND at_ms >= ? AND rules <> '' AND ${UNWANTED} GROUP BY rules ORDER BY count DESC LIMIT 1000`,
  )
  const senders: Statement<{ sender: string; count: number }, [string, number]> = sqlite.prepare(
    `SELECT sender, count(*) AS count FROM trace
     WHERE id >= ? AND at_ms >= ? AND ${UNWANTED} GROUP BY sender ORDER BY count DESC, sender LIMIT ${TOP_MAX}`,
  )
  const saw: Statement<{ id: string }, [what: number, from: string, before: string]> =
    sqlite.prepare('SELECT id FROM sighting WHERE what = ? AND id >= ? AND id < ? LIMIT 1')
  return {
    classes,
    rules,
    senders,
    insert: sqlite.prepare(
      'INSERT OR IGNORE INTO trace VALUES (?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?)',
    ),
    // As the join of two states: later than what is there, and nothing takes back a delivery.
    update: sqlite.prepare(
      `UPDATE trace SET delivery = ?, delivery_reply = ifnull(?, delivery_reply), delivery_ms = ?,
         version = max(version + 1, ?), released_ms = ifnull(?, released_ms)
       WHERE id = ? AND place = ? AND (delivery IS NOT 'delivered' OR ? = 'delivered')`,
    ),
    saw,
    event: sqlite.prepare('INSERT OR IGNORE INTO trace_event VALUES (?,?,?,?,?,?,?,?)'),
    oldest,
    pruneTrace: sqlite.prepare('DELETE FROM trace WHERE id <= ?'),
    pruneEvents: sqlite.prepare('DELETE FROM trace_event WHERE id <= ?'),
    pruneJudgements: sqlite.prepare('DELETE FROM judgement WHERE id <= ?'),
    pruneSightings: sqlite.prepare('DELETE FROM sighting WHERE id <= ?'),
  }
}
