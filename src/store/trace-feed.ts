/**
 * The history of every mail as peers read it along: which message changed in which order, and the
 * join of what two nodes know of one. Lines of a history are facts and only added; of a recipient's
 * row the later state wins, but nothing takes back a delivery.
 *
 * What travels is a part of a message (its row of up to 50 recipients, whole) with the writes that
 * it answers for. A power cut takes rows, log and vector back together, and the next run writes
 * under another name: so its commits need no sync.
 */
import type { Clock } from '../base/clock.ts'
import { assert } from '../base/errors.ts'
import type { MessageId, NodeId } from '../base/ids.ts'
import { type Random, randomHex } from '../base/random.ts'
import { canonicalText, covers, EMPTY_VECTOR, type Vector, type WriterId } from '../config/merge.ts'
import { domainIn } from '../message/address.ts'
import type { Judgement } from '../message/rows.ts'
import { foldedOrNull, idFloor } from './conditions.ts'
import type { StoreDatabase } from './db.ts'
import type { Applied, Cursor, Feed, Incoming, Outgoing, OwnWrite, Place } from './feed.ts'
import { contactOf, sightingsOf } from './sightings.ts'
import type { judgements } from './tables.ts'
import {
  type Dot,
  type Line,
  PART_PLACES,
  type RowState,
  readPart,
  type StoredRow,
  type TracePart,
} from './trace-part.ts'

/** Above all places: a message has at most `mail.recipients` of them. */
const PLACES_MAX = 1_000_000
/** Lines of one write. */
export const WRITE_LINES_MAX = 50
/** Entries that one `read` looks at; a row of the log that the reader knows whole counts as one. */
const SCAN_MAX = 5_000
/** Entries in one row of the log: an insert for each costs more than all else that is new here. */
const ROW_ENTRIES_MAX = 250
/** Rows of the log that one `prune` looks at. */
const PRUNE_MAX = 500

/** The join of two states of one recipient: commutative, associative, idempotent. */
export function joinRows(a: RowState, b: RowState): RowState {
  const winner = compareRows(a, b) >= 0 ? a : b
  const releasedMs = Math.max(a.releasedMs ?? -1, b.releasedMs ?? -1)
  return { ...winner, releasedMs: releasedMs < 0 ? null : releasedMs }
}

/** Both have every column; texts of them cost a mirror more than all else about a row. */
function isSame(a: RowState, b: RowState): boolean {
  return Object.entries(a).every(([name, value]) => b[name as keyof RowState] === value)
}

function compareRows(a: RowState, b: RowState): number {
  const delivered = (row: RowState): number => (row.delivery === 'delivered' ? 1 : 0)
  const text = (row: RowState): string => canonicalText({ ...row, releasedMs: null })
  const known = delivered(a) - delivered(b) || a.version - b.version
  if (known !== 0) return known
  return text(a) >= text(b) ? 1 : -1
}

export class TraceFeed implements Feed {
  readonly name = 'trace'
  #generation: string
  #writer: WriterId
  readonly #store: StoreDatabase
  readonly #random: Random
  readonly #clock: Clock
  readonly #keepMs: () => number
  readonly #wrote: (rows: number) => void
  readonly #statements: ReturnType<typeof prepare>
  readonly #vector: Map<WriterId, number>
  readonly #onOwn: ((write: OwnWrite) => void)[] = []
  /** Writes that are in the log and that the vector does not cover yet: not logged twice. */
  readonly #beyond = new Map<WriterId, Set<number>>()
  #head: Place
  #seq = 0
  /** The row of the log that a transaction is filling. */
  #row: LogRow | null = null

  /** `keepMs`: how long history is kept. `wrote`: rows were committed. */
  constructor(
    store: StoreDatabase,
    deps: {
      readonly clock: Clock
      readonly random: Random
      readonly keepMs: () => number
      readonly wrote: (rows: number) => void
    },
  ) {
    this.#store = store
    this.#random = deps.random
    this.#clock = deps.clock
    this.#keepMs = deps.keepMs
    this.#wrote = deps.wrote
    // Never one of before: a writer used again lost acknowledged writes in simulation.
    this.#writer = randomHex(deps.random, 6)
    this.#generation = randomHex(deps.random, 6)
    this.#statements = prepare(store)
    const { vector, last } = this.#statements
    this.#vector = new Map(vector.all().map(({ writer, seq }) => [writer, seq]))
    this.#head = last.get()?.place ?? 0
  }

  get writer(): WriterId {
    return this.#writer
  }

  get generation(): string {
    return this.#generation
  }

  /** As `Replica.renew`. */
  renew(): void {
    this.#writer = randomHex(this.#random, 6)
    this.#generation = randomHex(this.#random, 6)
    this.#seq = 0
  }

  get head(): Place {
    return this.#head
  }

  vector(): Vector {
    return this.#vector
  }

  /**
   * Runs `act` as one transaction; what it logged is announced when it is committed. `act` gives
   * how many rows it wrote. @throws StoreError, and nothing is changed
   */
  write(act: () => number): void {
    const head = this.#head
    const seq = this.#seq
    this.#commit(() => {
      const rows = act()
      if (this.#seq > seq) this.#statements.setVector.run(this.writer, this.#seq)
      return rows
    })
    if (this.#seq === seq) return
    this.#vector.set(this.writer, this.#seq)
    if (this.#onOwn.length === 0) return
    const write = this.#ownWrite(head, seq)
    for (const listener of this.#onOwn) listener(write)
  }

  /** Inside `write`: notes that a part of a message changes. Gives the number of this write. */
  log(id: MessageId, part: number): number {
    this.#seq += 1
    this.#append(id, part, this.writer, this.#seq)
    return this.#seq
  }

  read(after: Place, seen: Vector, bytesMax: number): Outgoing {
    return this.#store.attempt(() => {
      // One part is sent once, with all its writes up to here.
      const parts = new Map<string, Entry[]>()
      const rows = () => this.#parts([...parts.values()])
      let bytes = 0
      let upto = after
      let scanned = 0
      for (const logged of this.#statements.after.iterate(after)) {
        if (scanned >= SCAN_MAX) return { rows: rows(), upto, final: false }
        scanned += 1
        for (const entry of entriesOf(logged, after, seen)) {
          const key = `${entry.id} ${entry.part}`
          const entries = parts.get(key)
          const size = entries === undefined ? this.#sizeOf(entry) : this.#linesSizeOf(entry)
          if (bytes > 0 && bytes + size > bytesMax) return { rows: rows(), upto, final: false }
          bytes += size
          if (entries !== undefined) entries.push(entry)
          else if (size > 0) parts.set(key, [entry])
          scanned += 1
          upto = entry.place
        }
        upto = logged.place
      }
      return { rows: rows(), upto: this.#head, final: true }
    })
  }

  apply({ peer, rows, as }: Incoming): Applied {
    const parts = rows.map(readPart)
    const counts = new Map<WriterId, number>()
    const logged: Dot[] = []
    let changed = 0
    this.#commit(() => {
      const floor = idFloor(this.#clock.wallMs() - this.#keepMs())
      let written = 0
      for (const part of parts) {
        // What is too old was forgotten here, and must not come back.
        if (part.id < floor) continue
        const merged = this.#merge(part)
        written += merged
        if (merged > 0) changed += 1
        for (const [writer, seq] of part.dots) {
          if (covers(this.#vector, writer, seq) || this.#beyond.get(writer)?.has(seq)) continue
          this.#append(part.id, part.part, writer, seq)
          logged.push([writer, seq])
        }
      }
      if (as.kind === 'batch') {
        this.#statements.setCursor.run(peer, as.cursor.generation, as.cursor.at)
        for (const [writer, seq] of as.vector ?? []) counts.set(writer, seq)
      } else if (as.kind === 'push' && covers(this.#vector, as.writer, as.after)) {
        counts.set(as.writer, as.upto)
      }
      for (const [writer, seq] of counts) {
        if (!covers(this.#vector, writer, seq)) this.#statements.setVector.run(writer, seq)
      }
      return written
    })
    this.#takeOver(counts, logged)
    return { changed, parked: 0 }
  }

  cursor(peer: NodeId): Cursor | null {
    const found = this.#store.attempt(() => this.#statements.cursor.get(peer))
    return found === null ? null : { generation: found.generation, at: found.place }
  }

  onOwn(listener: (write: OwnWrite) => void): void {
    this.#onOwn.push(listener)
  }

  /** Inside a transaction: forgets the oldest entries when all their messages are below `floor`. */
  prune(floor: string): void {
    this.#statements.prune.run(PRUNE_MAX, floor)
  }

  digest(): null {
    return null
  }

  leaf(): readonly never[] {
    return []
  }

  rowsOf(): readonly never[] {
    return []
  }

  /** Merges one state of a row; true when it changed something here. Inside a transaction. */
  mergeRow(row: RowState): boolean {
    const { row: one, put } = this.#statements
    const there = one.get(row.id, row.place)
    const { folded, ...before } = there ?? { folded: null, ...row }
    const joined = there === null ? row : joinRows(before, row)
    if (there !== null && isSame(joined, before)) return false
    put.run(...columnsOf(joined))
    return true
  }

  #commit(act: () => number): void {
    const head = this.#head
    const seq = this.#seq
    let rows: number
    try {
      rows = this.#store.transact(() => {
        const written = act()
        this.#closeRow()
        return written
      })
    } catch (error) {
      this.#head = head
      this.#seq = seq
      this.#row = null
      throw error
    }
    this.#wrote(rows)
  }

  #append(id: MessageId, part: number, writer: WriterId, seq: number): void {
    const entry = part === 0 ? id : `${id}.${part}`
    const row = this.#row
    if (row?.writer === writer && seq === row.seq + 1 && row.parts.length < ROW_ENTRIES_MAX) {
      row.seq = seq
      row.parts.push(entry)
      if (id > row.newest) row.newest = id
    } else {
      this.#closeRow()
      this.#row = { writer, seq, parts: [entry], newest: id }
    }
    this.#head += 1
  }

  #closeRow(): void {
    if (this.#row === null) return
    const { writer, seq, parts, newest } = this.#row
    this.#statements.append.run(this.#head, writer, seq, parts.join(' '), newest)
    this.#row = null
  }

  /** Rows are made when somebody asks: a node without peers writes only its log. */
  #ownWrite(head: Place, after: number): OwnWrite {
    const upto = this.#head
    const make = (): OwnWrite['rows'] => this.#partsOf(head, upto)
    let rows: OwnWrite['rows'] | null = null
    return {
      get rows() {
        rows ??= make()
        return rows
      },
      writer: this.writer,
      after,
      upto: this.#seq,
    }
  }

  #partsOf(after: Place, upto: Place): readonly TracePart[] {
    return this.#store.read(() => {
      const rows = this.#statements.between.all(after, upto)
      const entries = rows.flatMap((logged) => entriesOf(logged, after, EMPTY_VECTOR))
      const parts = Map.groupBy(entries, ({ id, part }) => `${id} ${part}`)
      return this.#parts([...parts.values()])
    })
  }

  /**
   * All entries of a group are of one part. What was forgotten is left out. One statement for all:
   * asked for row by row they cost three times as much.
   */
  #parts(groups: readonly (readonly Entry[])[]): TracePart[] {
    const wanted = groups.map((entries) => {
      const [first] = entries
      assert(first !== undefined, 'a part is sent for a write')
      return [first.id, first.part, entries.map(({ writer, seq }) => [writer, seq])]
    })
    return this.#statements.parts
      .all(PART_PLACES, JSON.stringify(wanted))
      .map(({ json }) => JSON.parse(json) as TracePart)
      .filter(({ rows, lines }) => rows.length + lines.length > 0)
  }

  #sizeOf(entry: Entry): number {
    const [part] = this.#parts([[entry]])
    return part === undefined ? 0 : JSON.stringify(part).length
  }

  #linesSizeOf({ id, writer, seq }: Entry): number {
    return JSON.stringify([writer, seq, this.#statements.lines.all(id, writer, seq)]).length
  }

  /** How many rows and lines changed. */
  #merge({ id, part, rows, lines, judgement }: TracePart): number {
    const { addLine } = this.#statements
    let changed = 0
    for (const row of rows) if (this.mergeRow({ id, ...row })) changed += 1
    for (const { seq, writer, dot, atMs, recipient, what, detail } of lines) {
      changed += addLine.run(id, writer, dot, seq, atMs, recipient, what, detail).changes
    }
    const isJudged = judgement !== null && this.judge(id, judgement)
    if (isJudged) changed += 1
    // The judgement comes with the first part; rows of others may come before it or after it.
    if (isJudged) this.meet(id)
    else if (part > 0 || rows.some(({ releasedMs }) => releasedMs !== null)) this.meet(id, part)
    return changed
  }

  /**
   * Keeps a judgement and what its message can be found by. Inside a transaction. `judgement` is
   * what `said`, its JSON, says; without it that is read, checked when it came.
   */
  judge(id: string, said: string, judgement?: Judgement): boolean {
    const { judge, sight } = this.#statements
    if (judge.run(id, said).changes === 0) return false
    const made = judgement ?? (JSON.parse(said) as Judgement)
    for (const what of sightingsOf(made)) sight.run(id, what)
    return true
  }

  /**
   * Remembers whose people have had mail of the author: where a copy was let on, or released. All
   * rows that are known, or those of one part. Inside a transaction, after rows and judgement.
   */
  meet(id: string, part?: number): void {
    const { judgement, taken } = this.#statements
    const said = judgement.get(id)?.said
    if (said === undefined) return
    const { author } = JSON.parse(said) as Judgement
    if (typeof author !== 'string') return
    const from = (part ?? 0) * PART_PLACES
    const rows = taken.all(id, from, part === undefined ? PLACES_MAX : from + PART_PLACES)
    this.met(id, author, rows)
  }

  /** As `meet`, by somebody who knows the author and the rows that were let on. */
  met(id: string, author: string, rows: readonly { readonly recipient: string }[]): void {
    const { sight } = this.#statements
    for (const domain of new Set(rows.map(({ recipient }) => domainIn(recipient)))) {
      for (const what of Object.values(contactOf(author, domain))) sight.run(id, what)
    }
  }

  #takeOver(counts: ReadonlyMap<WriterId, number>, logged: readonly Dot[]): void {
    for (const [writer, seq] of logged) {
      const seqs = this.#beyond.get(writer) ?? new Set()
      this.#beyond.set(writer, seqs.add(seq))
    }
    for (const [writer, upto] of counts) {
      if (covers(this.#vector, writer, upto)) continue
      this.#vector.set(writer, upto)
      const seqs = this.#beyond.get(writer)
      for (const seq of seqs ?? []) if (seq <= upto) seqs?.delete(seq)
      if (seqs?.size === 0) this.#beyond.delete(writer)
    }
  }
}

/** Entries of a row of the log after a place, less those that a reader who covers `seen` has. */
function entriesOf({ place, writer, seq, parts }: Logged, after: Place, seen: Vector): Entry[] {
  if (covers(seen, writer, seq)) return []
  const entries = parts.split(' ')
  return entries.flatMap((entry, index) => {
    const back = entries.length - 1 - index
    if (place - back <= after || covers(seen, writer, seq - back)) return []
    const [id = '', part = '0'] = entry.split('.')
    return [{ place: place - back, id, part: Number(part), writer, seq: seq - back }]
  })
}

type Entry = {
  readonly place: Place
  readonly id: string
  readonly part: number
  readonly writer: WriterId
  readonly seq: number
}

type Logged = {
  readonly place: Place
  readonly writer: WriterId
  readonly seq: number
  readonly parts: string
}

/** `seq` and `newest` as those of a Logged row; its place is the head. */
type LogRow = { readonly writer: WriterId; seq: number; readonly parts: string[]; newest: string }

type Columns = readonly (string | number | null)[]

function columnsOf(row: RowState): (string | number | null)[] {
  return [
    row.id,
    row.place,
    row.atMs,
    row.clientIp,
    row.sender,
    row.recipient,
    row.subject,
    foldedOrNull(row.subject),
    row.sizeBytes,
    row.score,
    row.rules,
    row.unknownCount,
    row.accept,
    row.acceptReply,
    row.delivery,
    row.deliveryReply,
    row.deliveryMs,
    row.releasedMs,
    row.node,
    row.version,
  ]
}

/** There is one of each message; of two the same one wins everywhere. */
const JOIN_JUDGEMENT = `INSERT INTO judgement VALUES (?, ?)
  ON CONFLICT DO UPDATE SET said = excluded.said WHERE excluded.said > said`

const ROW = `place, at_ms AS atMs, client_ip AS clientIp, sender, recipient, subject,
  size_bytes AS sizeBytes, score, rules, unknown_count AS unknownCount, accept,
  accept_reply AS acceptReply, delivery, delivery_reply AS deliveryReply,
  delivery_ms AS deliveryMs, released_ms AS releasedMs, node, version`
const LINE = 'seq, writer, dot, at_ms AS atMs, recipient, what, detail'

/** Columns of a SELECT as members of a JSON object. */
function members(columns: string): string {
  return columns
    .split(',')
    .map((column) => column.trim().split(' AS '))
    .map(([column = '', name = column]) => `'${name}', ${column}`)
    .join(', ')
}

/** Parts as JSON, out of [id, part, [[writer, seq], …]]. */
const PARTS = `SELECT json_object('id', id, 'part', part,
    'rows', json((SELECT json_group_array(json_object(${members(ROW)})) FROM trace
      WHERE trace.id = wanted.id AND place >= part * ?1 AND place < part * ?1 + ?1)),
    'lines', json((SELECT json_group_array(json_object(${members(LINE)}))
      FROM json_each(dots) AS one CROSS JOIN trace_event
      WHERE trace_event.id = wanted.id AND writer = one.value ->> 0 AND dot = one.value ->> 1)),
    'judgement', (SELECT said FROM judgement WHERE judgement.id = wanted.id AND part = 0),
    'dots', json(dots)) AS json
  FROM (SELECT value ->> 0 AS id, value ->> 1 AS part, value -> 2 AS dots FROM json_each(?2)) AS wanted`

function prepare({ sqlite }: StoreDatabase) {
  return {
    last: sqlite.query<{ place: number }, []>(
      'SELECT coalesce(max(place), 0) AS place FROM trace_log',
    ),
    append: sqlite.query<null, [number, string, number, string, string]>(
      'INSERT INTO trace_log VALUES (?, ?, ?, ?, ?)',
    ),
    after: sqlite.query<Logged, [number]>(
      'SELECT place, writer, seq, parts FROM trace_log WHERE place > ? ORDER BY place',
    ),
    // No row reaches over the end of a transaction.
    between: sqlite.query<Logged, [number, number]>(
      `SELECT place, writer, seq, parts FROM trace_log WHERE place > ? AND place <= ?
       ORDER BY place`,
    ),
    prune: sqlite.query<null, [number, string]>(
      `DELETE FROM trace_log WHERE place IN (SELECT place FROM trace_log ORDER BY place LIMIT ?)
         AND newest < ?`,
    ),
    parts: sqlite.query<{ json: string }, [number, string]>(PARTS),
    row: sqlite.query<StoredRow, [string, number]>(
      `SELECT id, folded, ${ROW} FROM trace WHERE id = ? AND place = ?`,
    ),
    put: sqlite.query<null, Columns & (string | number | null)[]>(
      'INSERT OR REPLACE INTO trace VALUES (?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?)',
    ),
    lines: sqlite.query<Omit<Line, 'id'>, [string, string, number]>(
      `SELECT ${LINE} FROM trace_event WHERE id = ? AND writer = ? AND dot = ? ORDER BY seq`,
    ),
    addLine: sqlite.query<
      null,
      [string, string, number, number, number, string | null, string, string]
    >('INSERT OR IGNORE INTO trace_event VALUES (?, ?, ?, ?, ?, ?, ?, ?)'),
    judgement: sqlite.query<Pick<typeof judgements.$inferSelect, 'said'>, [string]>(
      'SELECT said FROM judgement WHERE id = ?',
    ),
    judge: sqlite.query<null, [string, string]>(JOIN_JUDGEMENT),
    taken: sqlite.query<{ recipient: string }, [string, number, number]>(
      `SELECT DISTINCT recipient FROM trace WHERE id = ? AND place >= ? AND place < ?
         AND (accept = 'accepted' OR released_ms IS NOT NULL)`,
    ),
    sight: sqlite.query<null, [string, number]>('INSERT OR IGNORE INTO sighting VALUES (?, ?)'),
    vector: sqlite.query<{ writer: string; seq: number }, []>(
      'SELECT writer, seq FROM trace_vector ORDER BY writer',
    ),
    setVector: sqlite.query<null, [string, number]>(
      'INSERT OR REPLACE INTO trace_vector VALUES (?, ?)',
    ),
    cursor: sqlite.query<{ generation: string; place: number }, [string]>(
      'SELECT generation, place FROM trace_cursor WHERE peer = ?',
    ),
    setCursor: sqlite.query<null, [string, string, number]>(
      'INSERT OR REPLACE INTO trace_cursor VALUES (?, ?, ?)',
    ),
  }
}
