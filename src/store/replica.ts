/**
 * The replicated rows of state.db: written here or merged from peers, in one order of application
 * that peers read along (design: cluster.md, State). Every commit is synced.
 */
import type { Clock } from '../base/clock.ts'
import { assert, RefusalError } from '../base/errors.ts'
import type { NodeId } from '../base/ids.ts'
import { type Random, randomHex } from '../base/random.ts'
import {
  type Cell,
  canonicalText,
  compareOwned,
  covers,
  dotsOf,
  isKnown,
  isTombstone,
  mergeStates,
  type OwnedRow,
  type SharedRow,
  type SharedState,
  stampOfState,
  type Vector,
  type WriterId,
  writeCell,
} from '../config/merge.ts'
import { type Stamp, StampClock, stampOf } from '../config/stamp.ts'
import type { StoreDatabase } from './db.ts'
import { DigestSums, hashOfRow, isCounted, leafOf } from './digest.ts'
import type {
  Applied,
  Cursor,
  Digest,
  Incoming,
  Outgoing,
  OwnWrite,
  Place,
  WireRow,
} from './feed.ts'
import { DELETED, HIDDEN, LIVING, prepare } from './replica-table.ts'
import type { Changed, Projection, SharedRows } from './shared.ts'
import { readSharedRow } from './shared-row.ts'

/** Rows that one `read` looks at, also when the reader knows them all: about 20 ms. */
const SCAN_ROWS_MAX = 5_000
const PAGE_ROWS = 500
/** Rows from the future that wait, over all peers; more are refused (faults.md K06). */
const PARKED_MAX = 10_000
/** A tombstone is kept at least this long, whoever has acknowledged it. */
const TOMBSTONE_MS = 86_400_000
/**
 * What is forgotten stays for so long as a hidden tombstone: a disk may go back to before it, or a
 * node come back with a version that had no end yet, and both ask for all that they do not cover.
 * A member that was away for longer must join anew.
 */
const HIDDEN_KEPT_MS = 400 * 86_400_000
/** After its `untilMs` a row is kept this long: clocks differ. */
const FORGET_MS = 86_400_000
/** Whose writer an id is, is of use as long as the history is kept. */
const WRITER_KEPT_MS = 500 * 86_400_000

/**
 * Who is a member, and who is none any more, waits for no clock: a node whose clock is behind must
 * refuse a stolen node as soon as the others do. No stamp decides about these rows.
 */
const NEVER_PARKED: readonly string[] = ['member']

type Origin = Changed['origin']

/** What a transaction has changed so far; taken over when it is committed. */
type Unit = {
  head: Place
  seq: number
  announced: boolean
  readonly vector: Map<WriterId, number>
  readonly frozen: Map<WriterId, number>
  parked: number
  readonly changed: Readonly<Record<Origin, Map<string, Set<string>>>>
  readonly sums: (() => void)[]
}

export class Replica implements SharedRows {
  readonly name = 'state'
  readonly stamps: StampClock
  readonly #store: StoreDatabase
  readonly #clock: Clock
  readonly #random: Random
  readonly #node: NodeId
  readonly #statements: ReturnType<typeof prepare>
  readonly #projections = new Map<string, Projection>()
  readonly #listeners: { readonly kind: string; readonly run: (changed: Changed) => void }[] = []
  readonly #onOwn: ((write: OwnWrite) => void)[] = []
  #writer: WriterId
  #generation: string
  #head: Place
  #seq = 0
  /** The row that says whose writer this is has been written. */
  #announced = false
  /** What ends of batches and pushes have promised; `#frozen` says how much of it counts yet. */
  #vector: Map<WriterId, number>
  #frozen: Map<WriterId, number>
  #parked: number
  /** Null until somebody asks for a digest: a node without peers never does. */
  #sums: DigestSums | null = null
  #unit: Unit | null = null

  constructor(
    store: StoreDatabase,
    deps: { readonly clock: Clock; readonly random: Random; readonly node: NodeId },
  ) {
    this.#store = store
    this.#clock = deps.clock
    this.#random = deps.random
    this.#node = deps.node
    this.stamps = new StampClock(deps.clock)
    // Never one of before: a writer used again lost acknowledged writes in simulation.
    this.#writer = randomHex(deps.random, 6)
    this.#generation = randomHex(deps.random, 6)
    this.#statements = prepare(store)
    const { last, vector, frozen, parkedCount } = this.#statements
    const { place, stamp } = store.attempt(() => last.get()) ?? { place: 0, stamp: 0 }
    this.#head = place
    this.stamps.observe(stamp)
    this.#vector = new Map(vector.all().map(({ writer, seq }) => [writer, seq]))
    this.#frozen = new Map(frozen.all().map(({ writer, seq }) => [writer, seq]))
    this.#parked = parkedCount.get()?.count ?? 0
  }

  get writer(): WriterId {
    return this.#writer
  }

  get generation(): string {
    return this.#generation
  }

  get head(): Place {
    return this.#unit?.head ?? this.#head
  }

  get parked(): number {
    return this.#parked
  }

  /**
   * Goes on as another writer, as after a start: this process may be a copy of itself that was
   * resumed, and two that write under one id lose what one of them wrote.
   */
  renew(): void {
    assert(this.#unit === null, 'no writer changes inside a transaction')
    this.#writer = randomHex(this.#random, 6)
    this.#generation = randomHex(this.#random, 6)
    this.#seq = 0
    this.#announced = false
  }

  transact<Result>(act: () => Result): Result {
    if (this.#unit !== null) return act()
    const unit: Unit = {
      head: this.#head,
      seq: this.#seq,
      announced: this.#announced,
      vector: new Map(this.#vector),
      frozen: new Map(this.#frozen),
      parked: this.#parked,
      changed: { own: new Map(), peer: new Map() },
      sums: [],
    }
    this.#unit = unit
    let result: Result
    try {
      result = this.#store.transact(act)
    } finally {
      this.#unit = null
    }
    const after = this.#seq
    this.#head = unit.head
    this.#seq = unit.seq
    this.#announced = unit.announced
    this.#vector = unit.vector
    this.#frozen = unit.frozen
    this.#parked = unit.parked
    for (const change of unit.sums) change()
    this.#announce(unit, after)
    return result
  }

  cell(kind: string, key: string): Cell | null {
    const state = this.#get(kind, key)
    return state?.shape === 'cell' ? state : null
  }

  owned(kind: string, key: string): OwnedRow | null {
    const state = this.#get(kind, key)
    return state?.shape === 'owned' ? state : null
  }

  list(kind: string, prefix = ''): readonly SharedRow[] {
    return this.#store
      .attempt(() => this.#statements.list.all(kind, prefix, `${prefix}\u{10ffff}`))
      .map(({ key, state }) => ({ kind, key, state: parse(state) }))
  }

  write(
    kind: string,
    key: string,
    value: string | null,
    author: string,
    seen: Vector | null = null,
  ): Cell {
    return this.transact(() => {
      const before = this.#find(kind, key)
      const last = before?.state ?? null
      // An edit must win over what it saw, also over a value of a clock that ran ahead.
      const stamp = this.#nextStamp(last)
      const head = { writer: this.writer, seq: this.#nextSeq(), stamp, author, value }
      const cell = writeCell(last?.shape === 'cell' ? last : null, head, seen)
      this.#save('own', kind, key, cell, before)
      return cell
    })
  }

  put(
    kind: string,
    key: string,
    version: readonly [term: number, revision: number],
    value: string | null,
    author: string,
    untilMs: number | null,
  ): OwnedRow {
    return this.transact(() => {
      const before = this.#find(kind, key)
      const last = before?.state ?? null
      const row: OwnedRow = {
        shape: 'owned',
        version,
        writer: this.writer,
        seq: this.#nextSeq(),
        stamp: this.#nextStamp(last),
        author,
        value,
        untilMs,
      }
      assert(
        last?.shape !== 'owned' || compareOwned(row, last) > 0,
        `${kind}/${key} is put with a higher version`,
      )
      this.#save('own', kind, key, row, before)
      return row
    })
  }

  project(kind: string, projection: Projection): void {
    assert(!this.#projections.has(kind), `one projection of ${kind}`)
    this.#projections.set(kind, projection)
  }

  onChange(kind: string, listener: (changed: Changed) => void): void {
    this.#listeners.push({ kind, run: listener })
  }

  onOwn(listener: (write: OwnWrite) => void): void {
    this.#onOwn.push(listener)
  }

  start(): void {
    const { projected, setProjected, ofKind } = this.#statements
    this.transact(() => {
      for (const [kind, projection] of this.#projections) {
        if (projected.get(kind)?.version === projection.version) continue
        projection.clear()
        for (const { key, state } of ofKind.all(kind)) projection.apply(key, parse(state), null)
        setProjected.run(kind, projection.version)
      }
    })
  }

  vector(): Vector {
    if (this.#frozen.size === 0) return this.#vector
    const known = new Map(this.#vector)
    for (const [writer, seq] of this.#frozen) {
      if ((known.get(writer) ?? 0) <= seq) continue
      if (seq > 0) known.set(writer, seq)
      else known.delete(writer)
    }
    return known
  }

  cursor(peer: NodeId): Cursor | null {
    const found = this.#store.attempt(() => this.#statements.cursor.get(peer))
    return found === null ? null : { generation: found.generation, at: found.place }
  }

  read(after: Place, seen: Vector, bytesMax: number): Outgoing {
    return this.#store.attempt(() => {
      const rows: WireRow[] = []
      let bytes = 0
      let upto = after
      let scanned = 0
      // By pages: a statement that stays open would hold up the checkpoint.
      for (;;) {
        const page = this.#statements.after.all(upto, PAGE_ROWS)
        for (const { kind, key, writer, seq, place } of page) {
          if (scanned >= SCAN_ROWS_MAX || bytes >= bytesMax) return { rows, upto, final: false }
          scanned += 1
          upto = place
          if (writer !== null && seq !== null && covers(seen, writer, seq)) continue
          const text = this.#statements.get.get(kind, key)?.state ?? ''
          const state = parse(text)
          if (writer === null && isKnown(state, seen)) continue
          rows.push({ kind, key, state })
          bytes += text.length + key.length + 40
        }
        if (page.length < PAGE_ROWS) return { rows, upto: this.#head, final: true }
      }
    })
  }

  apply({ peer, rows, as }: Incoming): Applied {
    const read = rows.map(readSharedRow)
    return this.transact(() => {
      let changed = 0
      let parked = 0
      for (const row of read) {
        if (!NEVER_PARKED.includes(row.kind) && this.stamps.isAhead(stampOfState(row.state))) {
          if (this.#park(row)) parked += 1
        } else if (this.#merge(row)) changed += 1
      }
      if (as.kind === 'batch') {
        this.#statements.setCursor.run(peer, as.cursor.generation, as.cursor.at)
        for (const [writer, seq] of as.vector ?? []) this.#promise(writer, seq)
      } else if (as.kind === 'push' && covers(this.#current().vector, as.writer, as.after)) {
        this.#promise(as.writer, as.upto)
      }
      return { changed, parked }
    })
  }

  settle(): number {
    if (this.#parked === 0) return 0
    const dueBefore = stampOf(this.#clock.wallMs() + 60_000)
    const { parkedDue, unpark, unfreeze } = this.#statements
    this.transact(() => {
      const unit = this.#current()
      for (const { kind, key, state } of parkedDue.all(dueBefore)) {
        this.#merge({ kind, key, state: parse(state) })
        unpark.run(kind, key)
        unit.parked -= 1
      }
      if (unit.parked > 0) return
      unit.frozen.clear()
      unfreeze.run()
    })
    return this.#parked
  }

  collect(durable: Vector | null, limit: number): number {
    const nowMs = this.#clock.wallMs()
    const { overdue, tombstones, dropHidden } = this.#statements
    return this.transact(() => {
      const gone = overdue.all(nowMs - FORGET_MS, limit)
      if (durable !== null) {
        const oldest = tombstones.all(stampOf(nowMs - TOMBSTONE_MS), limit - gone.length)
        const mine = this.vector()
        gone.push(
          ...oldest.filter(({ state }) => {
            const known = parse(state)
            return isKnown(known, durable) && isKnown(known, mine)
          }),
        )
      }
      for (const { kind, key, state } of gone) this.#hide(kind, key, parse(state))
      dropHidden.run(stampOf(nowMs - HIDDEN_KEPT_MS))
      return gone.length
    })
  }

  reset(keep: readonly string[]): void {
    const { everything, clearVector, clearCursors, clearParked, unfreeze } = this.#statements
    this.transact(() => {
      const unit = this.#current()
      clearVector.run()
      clearCursors.run()
      clearParked.run()
      unfreeze.run()
      unit.vector.clear()
      unit.frozen.clear()
      unit.parked = 0
      unit.announced = false
      for (const { kind, key, state } of everything.all()) {
        const before = parse(state)
        this.#statements.remove.run(kind, key)
        this.#noteForgotten(kind, key, before)
        if (!keep.includes(kind) || before.shape !== 'owned' || isTombstone(before)) continue
        const { version, value, author, untilMs } = before
        this.put(kind, key, version, value, author, untilMs)
      }
    })
    // Nobody may go on reading where a feed of another content ended.
    this.#generation = randomHex(this.#random, 6)
  }

  digest(): Digest {
    return this.#digestSums().digest(this.#clock.wallMs())
  }

  leaf(leaf: number): readonly { readonly name: string; readonly hash: string }[] {
    const nowMs = this.#clock.wallMs()
    return this.#store
      .attempt(() => this.#statements.living.all())
      .filter(({ kind, key, untilMs }) => leafOf(kind, key) === leaf && isCounted(untilMs, nowMs))
      .map(({ kind, key, hash }) => ({ name: `${kind}/${key}`, hash: hash.toString(16) }))
  }

  rowsOf(names: readonly string[]): readonly WireRow[] {
    return names.flatMap((name) => {
      const slash = name.indexOf('/')
      const kind = name.slice(0, slash)
      const key = name.slice(slash + 1)
      const found = this.#find(kind, key)
      return found === null ? [] : [{ kind, key, state: found.state }]
    })
  }

  /** What is shown: not what was collected. */
  #get(kind: string, key: string): SharedState | null {
    const found = this.#find(kind, key)
    return found === null || found.isHidden ? null : found.state
  }

  #find(kind: string, key: string): Found | null {
    const found = this.#store.attempt(() => this.#statements.get.get(kind, key))
    if (found === null) return null
    return { state: parse(found.state), isHidden: found.dead === HIDDEN }
  }

  #current(): Unit {
    assert(this.#unit !== null, 'a shared row is changed inside a transaction')
    return this.#unit
  }

  #nextStamp(before: SharedState | null): Stamp {
    const next = this.stamps.next()
    const last = before === null ? 0 : stampOfState(before)
    return this.stamps.isAhead(last) ? next : Math.max(next, last + 1)
  }

  #nextSeq(): number {
    const unit = this.#current()
    if (!unit.announced) {
      unit.announced = true
      this.put(
        'writer',
        this.writer,
        [1, 0],
        JSON.stringify({ node: this.#node }),
        'postern',
        this.#clock.wallMs() + WRITER_KEPT_MS,
      )
    }
    unit.seq += 1
    this.#promise(this.writer, unit.seq)
    return unit.seq
  }

  #promise(writer: WriterId, seq: number): void {
    const { vector } = this.#current()
    if (covers(vector, writer, seq)) return
    vector.set(writer, seq)
    this.#statements.setVector.run(writer, seq)
  }

  /** True when it changed something here. */
  #merge({ kind, key, state: told }: SharedRow): boolean {
    const nowMs = this.#clock.wallMs()
    if (isEarly(told, nowMs)) return false
    const before = this.#find(kind, key)
    const state = isForgotten(untilOf(told), nowMs) ? overOf(told) : told
    if (before === null && isTombstone(state)) {
      const isOld = stampOfState(state) < stampOf(nowMs - HIDDEN_KEPT_MS)
      if (isOld || isKnown(state, this.vector())) return false
    }
    const merged = before === null ? state : mergeStates(before.state, state)
    if (before !== null && canonicalText(before.state) === canonicalText(merged)) return false
    this.stamps.observe(stampOfState(state))
    this.#save('peer', kind, key, merged, before)
    return true
  }

  /** False when it waits already. Whoever wrote it counts no further until its time has come. */
  #park({ kind, key, state }: SharedRow): boolean {
    const unit = this.#current()
    const { getParked, putParked, freeze } = this.#statements
    const waiting = getParked.get(kind, key)
    const merged = waiting === null ? state : mergeStates(parse(waiting.state), state)
    const text = canonicalText(merged)
    for (const [writer, seq] of dotsOf(state)) {
      const known = unit.vector.get(writer) ?? 0
      if (seq <= known || unit.frozen.has(writer)) continue
      unit.frozen.set(writer, known)
      freeze.run(writer, known)
    }
    if (waiting?.state === text) return false
    if (waiting === null) {
      if (unit.parked >= PARKED_MAX) {
        throw new RefusalError(
          'unavailable',
          'stamp',
          `More than ${PARKED_MAX} rows of peers come from the future.`,
          'Set the clocks of the nodes right; see which node is ahead on the cluster page.',
        )
      }
      unit.parked += 1
    }
    putParked.run(kind, key, text, stampOfState(merged))
    return waiting === null
  }

  #save(origin: Origin, kind: string, key: string, state: SharedState, found: Found | null): void {
    const before = found === null || found.isHidden ? null : found.state
    const unit = this.#current()
    unit.head += 1
    const text = canonicalText(state)
    const hash = hashOfRow(kind, key, text)
    const untilMs = untilOf(state)
    const isDead = isTombstone(state)
    const [writer, seq] = state.shape === 'owned' ? [state.writer, state.seq] : [null, null]
    this.#statements.put.run(
      kind,
      key,
      text,
      writer,
      seq,
      stampOfState(state),
      untilMs,
      hash,
      isDead ? DELETED : LIVING,
      unit.head,
    )
    this.#countOut(unit, kind, key, before)
    if (!isDead) unit.sums.push(() => this.#sums?.add(kind, key, hash, untilMs))
    this.#note(unit, origin, kind, key)
    this.#projections.get(kind)?.apply(key, state, before)
  }

  #hide(kind: string, key: string, before: SharedState): void {
    const isOver = isForgotten(untilOf(before), this.#clock.wallMs())
    const text = canonicalText(isOver ? overOf(before) : before)
    this.#statements.hide.run(text, hashOfRow(kind, key, text), kind, key)
    this.#noteForgotten(kind, key, before)
  }

  #noteForgotten(kind: string, key: string, before: SharedState): void {
    const unit = this.#current()
    this.#countOut(unit, kind, key, before)
    // Forgetting is no write: peers do it by themselves.
    unit.changed.own.get(kind)?.delete(key)
    this.#note(unit, 'peer', kind, key)
    this.#projections.get(kind)?.forget(key)
  }

  #countOut(unit: Unit, kind: string, key: string, before: SharedState | null): void {
    if (before === null || isTombstone(before)) return
    // Hashed only where there are sums: a node without peers pays nothing for them.
    unit.sums.push(() =>
      this.#sums?.remove(kind, key, hashOfRow(kind, key, canonicalText(before)), untilOf(before)),
    )
  }

  #note(unit: Unit, origin: Origin, kind: string, key: string): void {
    const kinds = unit.changed[origin]
    const keys = kinds.get(kind) ?? new Set()
    kinds.set(kind, keys.add(key))
  }

  #announce(unit: Unit, after: number): void {
    for (const { kind, run } of this.#listeners) {
      for (const origin of ['own', 'peer'] as const) {
        const keys = unit.changed[origin].get(kind)
        if (keys !== undefined && keys.size > 0) run({ kind, keys: [...keys], origin })
      }
    }
    if (unit.seq === after || this.#onOwn.length === 0) return
    const rows = [...unit.changed.own].flatMap(([kind, keys]) =>
      this.rowsOf([...keys].map((key) => `${kind}/${key}`)),
    )
    const write = { rows, writer: this.writer, after, upto: unit.seq }
    for (const listener of this.#onOwn) listener(write)
  }

  #digestSums(): DigestSums {
    if (this.#sums !== null) return this.#sums
    const sums = new DigestSums()
    for (const { kind, key, hash, untilMs } of this.#store.attempt(() =>
      this.#statements.living.all(),
    )) {
      sums.add(kind, key, hash, untilMs)
    }
    this.#sums = sums
    return sums
  }
}

/** Canonical text that was checked when it came in. */
function parse(state: string): SharedState {
  return JSON.parse(state) as SharedState
}

function untilOf(state: SharedState): number | null {
  return state.shape === 'owned' ? state.untilMs : null
}

/**
 * What is left of a row when its time is over. An earlier version may have had no end, and who
 * still shows that is told of this one. The same version with its value wins, by its text: a clock
 * that was ahead has forgotten it here.
 */
function overOf(state: SharedState): SharedState {
  return state.shape === 'cell' ? state : { ...state, value: null, over: true }
}

/** Said to be over, and it is not: the clock of a peer is ahead. */
function isEarly(state: SharedState, nowMs: number): boolean {
  return state.shape === 'owned' && state.over === true && !isForgotten(state.untilMs, nowMs)
}

function isForgotten(untilMs: number | null, nowMs: number): boolean {
  return untilMs !== null && untilMs + FORGET_MS < nowMs
}

type Found = { readonly state: SharedState; readonly isHidden: boolean }
