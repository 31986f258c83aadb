/**
 * What must be true, known without looking at how the product does it. Every write carries its
 * hidden causal past: what its author's node had seen of the row. From that alone follows which
 * writes must be visible, where, and which of them are a conflict.
 */
import {
  type Cell,
  compareOwned,
  isConflict,
  isTombstone,
  type OwnedRow,
  type SharedState,
  type Vector,
} from '../../src/config/merge.ts'
import { AHEAD_MS_MAX, wallMsOf } from '../../src/config/stamp.ts'
import type { OwnWrite } from '../../src/store/feed.ts'
import type { SharedRows } from '../../src/store/shared.ts'
import type { World } from './world.ts'

/** A write of a cell. `bit` is its place in the sets of this cell. */
type Write = {
  readonly bit: bigint
  /** The writes that its author had been shown, and theirs. */
  readonly past: bigint
  readonly value: string | null
  readonly writer: string
  readonly seq: number
  readonly name: string
}

type History = { readonly writes: Write[]; readonly byDot: Map<string, Write> }

/** What one disk has seen: sets of writes by cell, and the highest version of owned rows. */
export class Memory {
  readonly cells = new Map<string, bigint>()
  readonly owned = new Map<string, OwnedRow>()

  copy(): Memory {
    const twin = new Memory()
    for (const [name, known] of this.cells) twin.cells.set(name, known)
    for (const [name, row] of this.owned) twin.owned.set(name, row)
    return twin
  }
}

/** One living node, as the oracle looks at it. */
export type Watched = {
  readonly name: string
  readonly rows: SharedRows
  readonly memory: Memory
  wallMs(): number
}

export class Oracle {
  readonly #world: World
  readonly #histories = new Map<string, History>()
  readonly #owned = new Map<string, OwnedRow[]>()
  /** Everything that a writer wrote, by seq. */
  readonly #byWriter = new Map<
    string,
    Map<number, { readonly name: string; readonly text: string }>
  >()
  readonly #lastOf = new Map<string, { seq: number; stamp: number }>()
  /** Set while two machines run one identity: their writers may then be the same. */
  isCloned = false

  constructor(world: World) {
    this.#world = world
  }

  get names(): readonly string[] {
    return [...this.#histories.keys()]
  }

  /** A write was made at `at`; `shown` is what its author had before his eyes, null for all. */
  wrote(
    at: Watched,
    kind: string,
    key: string,
    cell: Cell,
    value: string | null,
    shown: bigint,
  ): void {
    const name = `${kind}/${key}`
    const history = this.#history(name)
    const head = cell.heads.find(({ writer }) => writer === at.rows.writer)
    const mine = cell.heads.filter(
      ({ writer, value: its }) => writer === at.rows.writer && its === value,
    )
    const made = mine.reduce(
      (latest, one) => (one.seq > latest.seq ? one : latest),
      mine[0] ?? (head as never),
    )
    if (made === undefined) return this.#world.violate(`${at.name} wrote ${name} and cannot see it`)
    const write: Write = {
      bit: 1n << BigInt(history.writes.length),
      past: this.#withPasts(history, shown),
      value,
      writer: made.writer,
      seq: made.seq,
      name,
    }
    const dot = `${made.writer} ${made.seq}`
    if (history.byDot.has(dot)) this.#world.violate(`two writes of ${name} have the dot ${dot}`)
    history.writes.push(write)
    history.byDot.set(dot, write)
    this.saw(at, kind, key)
  }

  put(at: Watched, kind: string, key: string, row: OwnedRow): void {
    const name = `${kind}/${key}`
    const rows = this.#owned.get(name) ?? []
    rows.push(row)
    this.#owned.set(name, rows)
    this.saw(at, kind, key)
  }

  /** What a person at `at` is shown of a cell, for a later `wrote`: a stale page is a stale set. */
  shownAt(at: Watched, kind: string, key: string): bigint {
    return at.memory.cells.get(`${kind}/${key}`) ?? 0n
  }

  /** The row `kind/key` changed at a node, or was forgotten there. */
  saw(at: Watched, kind: string, key: string): void {
    const name = `${kind}/${key}`
    const cell = at.rows.cell(kind, key)
    const history = this.#histories.get(name)
    if (history !== undefined) {
      this.#sawCell(at, name, history, cell)
      return
    }
    const row = at.rows.owned(kind, key)
    if (row === null || !this.#owned.has(name)) return
    const before = at.memory.owned.get(name)
    if (before !== undefined && compareOwned(row, before) < 0) {
      this.#world.violate(`${name} went back at ${at.name}`)
    }
    at.memory.owned.set(name, row)
  }

  /** Everything that one process wrote in a commit: no dot twice, no gap, stamps that grow. */
  announced(write: OwnWrite): void {
    const { writer, after, upto } = write
    const last = this.#lastOf.get(writer) ?? { seq: 0, stamp: 0 }
    if (last.seq !== after && !this.isCloned) {
      this.#world.violate(`writer ${writer} goes on at ${after}, but had written ${last.seq}`)
    }
    const dots = this.#byWriter.get(writer) ?? new Map()
    this.#byWriter.set(writer, dots)
    let stamp = last.stamp
    for (const raw of write.rows) {
      const { kind, key, state } = raw as { kind: string; key: string; state: SharedState }
      for (const [seq, made, text] of ownDots(state, writer)) {
        if (seq <= after) continue
        const before = dots.get(seq)
        if (before !== undefined && before.text !== text) {
          this.#world.violate(`two writes have the dot ${writer} ${seq}`)
        }
        dots.set(seq, { name: `${kind}/${key}`, text })
        stamp = Math.max(stamp, made)
        if (made <= last.stamp) this.#world.violate(`writer ${writer} stamped backwards`)
      }
    }
    this.#lastOf.set(writer, { seq: upto, stamp })
  }

  /**
   * Invariant 5: what the vector of a node covers, it has. `before` is the vector when this was
   * asked last.
   */
  covered(at: Watched, before: Vector): void {
    for (const [writer, seq] of at.rows.vector()) {
      const dots = this.#byWriter.get(writer)
      if (dots === undefined) continue
      for (let covered = (before.get(writer) ?? 0) + 1; covered <= seq; covered += 1) {
        const made = dots.get(covered)
        if (made !== undefined) this.#has(at, made.name, writer, covered)
      }
    }
  }

  /** Invariant 7: nothing is taken over that is further in the future than a minute. */
  believed(at: Watched, kind: string, key: string): void {
    const cell = at.rows.cell(kind, key)
    for (const { stamp, writer } of cell?.heads ?? []) {
      if (writer === at.rows.writer) continue
      if (wallMsOf(stamp) > at.wallMs() + AHEAD_MS_MAX + 1_000) {
        this.#world.violate(`${at.name} believes a stamp of the future at ${kind}/${key}`)
      }
    }
  }

  /** Invariant 9: a tombstone goes only when every disk of the cluster has it. */
  collected(at: Watched, kind: string, key: string, disks: readonly Memory[]): void {
    const name = `${kind}/${key}`
    const known = at.memory.cells.get(name)
    if (known === undefined || at.rows.cell(kind, key) !== null) return
    for (const disk of disks) {
      if ((known & ~(disk.cells.get(name) ?? 0n)) !== 0n) {
        this.#world.violate(`${at.name} collected ${name} before everybody had it`)
      }
    }
  }

  /** At rest: what survived is visible on every node, and nothing else. Gives the conflicts. */
  agree(nodes: readonly Watched[]): number {
    let conflicts = 0
    for (const [name, history] of this.#histories) {
      const survived = nodes.reduce((all, { memory }) => all | (memory.cells.get(name) ?? 0n), 0n)
      const expected = this.#maximal(history, survived)
      const values = new Set(expected.map(({ value }) => value))
      if (values.size > 1) conflicts += 1
      for (const node of nodes) this.#agreeOn(node, name, expected, values.size > 1)
    }
    for (const [name] of this.#owned) {
      const seen = nodes.flatMap(({ memory }) => memory.owned.get(name) ?? [])
      const best = seen.reduce<OwnedRow | null>(
        (most, row) => (most === null || compareOwned(row, most) > 0 ? row : most),
        null,
      )
      if (best === null) continue
      const [kind, key] = split(name)
      for (const { rows, name: node } of nodes) {
        const row = rows.owned(kind, key)
        if (row === null || compareOwned(row, best) !== 0) {
          this.#world.violate(`${node} has not the last version of ${name}`)
        }
      }
    }
    return conflicts
  }

  #agreeOn(node: Watched, name: string, expected: readonly Write[], isOne: boolean): void {
    const [kind, key] = split(name)
    const cell = node.rows.cell(kind, key)
    if (cell === null) {
      const lost = expected.find(({ value }) => value !== null)
      if (lost !== undefined) this.#world.violate(`${node.name} lost ${dotOf(lost)} of ${name}`)
      return
    }
    const visible = cell.heads.map(dotOf)
    const wanted = expected.map(dotOf).sort()
    if (visible.toSorted().join() !== wanted.join()) {
      this.#world.violate(
        `${node.name} shows ${visible.join(', ')} of ${name}, not ${wanted.join(', ')}`,
      )
    }
    if (isConflict(cell) !== isOne) {
      this.#world.violate(`${node.name} ${isOne ? 'hides' : 'invents'} a conflict of ${name}`)
    }
  }

  #sawCell(at: Watched, name: string, history: History, cell: Cell | null): void {
    const known = at.memory.cells.get(name) ?? 0n
    if (cell === null) {
      const alive = this.#maximal(history, known).find(({ value }) => value !== null)
      if (alive !== undefined) this.#world.violate(`${at.name} forgot the living ${name}`)
      return
    }
    let now = known
    let visible = 0n
    for (const head of cell.heads) {
      const write = history.byDot.get(dotOf(head))
      if (write === undefined) return this.#world.violate(`nobody wrote ${dotOf(head)} of ${name}`)
      if (write.value !== head.value) this.#world.violate(`${dotOf(head)} of ${name} was changed`)
      now |= write.bit | write.past
      visible |= write.bit
    }
    at.memory.cells.set(name, now)
    const wanted = this.#maximal(history, now).reduce((all, { bit }) => all | bit, 0n)
    if (visible === wanted) return
    const back = history.writes.find(({ bit }) => (visible & ~wanted & bit) !== 0n)
    const gone = history.writes.find(({ bit }) => (wanted & ~visible & bit) !== 0n)
    this.#world.violate(
      back === undefined
        ? `${at.name} dropped ${gone === undefined ? '?' : dotOf(gone)} of ${name}`
        : `${dotOf(back)} of ${name} came back at ${at.name}`,
    )
  }

  #has(at: Watched, name: string, writer: string, seq: number): void {
    const history = this.#histories.get(name)
    const [kind, key] = split(name)
    if (history === undefined) {
      const made = this.#owned.get(name)?.find((row) => row.writer === writer && row.seq === seq)
      if (made === undefined) return
      const row = at.rows.owned(kind, key)
      if (row === null || compareOwned(row, made) < 0) {
        this.#world.violate(`${at.name} covers ${writer} ${seq} but has not its ${name}`)
      }
      return
    }
    const write = history.byDot.get(`${writer} ${seq}`)
    if (write === undefined) return
    if (((at.memory.cells.get(name) ?? 0n) & write.bit) !== 0n) return
    // A tombstone that everybody had may be gone before this node came.
    const isDeletedSince = history.writes.some(
      ({ value, bit, past }) => value === null && ((bit | past) & write.bit) !== 0n,
    )
    if (at.rows.cell(kind, key) === null && isDeletedSince) return
    this.#world.violate(`${at.name} covers ${writer} ${seq} but never saw its ${name}`)
  }

  #history(name: string): History {
    const found = this.#histories.get(name)
    if (found !== undefined) return found
    const history: History = { writes: [], byDot: new Map() }
    this.#histories.set(name, history)
    return history
  }

  #withPasts(history: History, set: bigint): bigint {
    return history.writes.reduce(
      (all, { bit, past }) => ((set & bit) !== 0n ? all | bit | past : all),
      0n,
    )
  }

  /** Writes of a set that no other write of the set had seen. */
  #maximal(history: History, set: bigint): readonly Write[] {
    let seen = 0n
    for (const { bit, past } of history.writes) if ((set & bit) !== 0n) seen |= past
    return history.writes.filter(({ bit }) => (set & bit & ~seen) !== 0n)
  }
}

function dotOf({ writer, seq }: { readonly writer: string; readonly seq: number }): string {
  return `${writer} ${seq}`
}

function split(name: string): readonly [kind: string, key: string] {
  const slash = name.indexOf('/')
  return [name.slice(0, slash), name.slice(slash + 1)]
}

function ownDots(state: SharedState, writer: string): (readonly [number, number, string])[] {
  if (state.shape === 'owned') {
    return state.writer === writer ? [[state.seq, state.stamp, JSON.stringify(state)]] : []
  }
  return state.heads
    .filter((head) => head.writer === writer)
    .map((head) => [head.seq, head.stamp, JSON.stringify(head)])
}

/** Whether nothing but a memory is left of a row. */
export function isGone(state: SharedState | null): boolean {
  return state === null || isTombstone(state)
}
