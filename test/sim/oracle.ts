/**
 * What must be true, known without looking at how the product does it. Every write carries its
 * hidden causal past: what its author's node had seen of the row. From that alone follows which
 * writes must be visible, where, and which of them are a conflict.
 */
import { MEMBER_KIND } from '../../src/cluster/roster.ts'
import {
  type Cell,
  compareOwned,
  type Head,
  isConflict,
  type OwnedRow,
  type SharedRow,
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
}

type History = {
  readonly writes: Write[]
  readonly byDot: Map<string, Write>
  /** Tombstones that some node has forgotten by now: they may be seen, or not. */
  collected: bigint
}

/** What one disk has seen: sets of writes by cell, and the highest version of owned rows. */
export class Memory {
  /** The disk went back, or a copy of it ran: what the node acknowledged it may not have. */
  hasLapsed = false
  /** How often the node was started, as its data directory counts. */
  epoch = 0
  readonly cells = new Map<string, bigint>()
  readonly owned = new Map<string, OwnedRow>()
  /** Copies of held mail that went into the queue of the node, by message and place. */
  readonly enqueued = new Map<string, string>()

  copy(): Memory {
    const twin = new Memory()
    twin.epoch = this.epoch
    twin.hasLapsed = this.hasLapsed
    for (const [name, known] of this.cells) twin.cells.set(name, known)
    for (const [copy, claim] of this.enqueued) twin.enqueued.set(copy, claim)
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
  /** What is on the disks of the other members that this node knows. */
  disks(): readonly Memory[]
}

export class Oracle {
  readonly #world: World
  readonly #histories = new Map<string, History>()
  readonly #owned = new Set<string>()
  /** The row that each write of each writer was about. */
  readonly #byWriter = new Map<string, Map<number, string>>()
  readonly #lastOf = new Map<string, { seq: number; stamp: number }>()
  #page: bigint | null = null
  /** Clocks of this simulation are wrong: stamps of one writer may go back. */
  readonly #isWild: boolean
  writes = 0

  constructor(world: World, isWild: boolean) {
    this.#world = world
    this.#isWild = isWild
  }

  /** What a person at `at` is shown of a cell, for a later `fromPage`. */
  shownAt(at: Watched, kind: string, key: string): bigint {
    return at.memory.cells.get(`${kind}/${key}`) ?? 0n
  }

  /** Runs `act`, whose one write is by somebody who had only `shown` before his eyes. */
  fromPage(shown: bigint, act: () => void): void {
    this.#page = shown
    try {
      act()
    } finally {
      this.#page = null
    }
  }

  /** The process itself wrote the row. */
  wrote(at: Watched, kind: string, key: string): void {
    const name = `${kind}/${key}`
    const cell = at.rows.cell(kind, key)
    if (cell !== null) this.#wroteCell(at, name, cell)
    else if (at.rows.owned(kind, key) !== null) this.#owned.add(name)
    this.writes += 1
    this.saw(at, kind, key)
  }

  #wroteCell(at: Watched, name: string, cell: Cell): void {
    const { writer } = at.rows
    const made = cell.heads.filter((head) => head.writer === writer).at(-1)
    if (made === undefined) return this.#world.violate(`${at.name} wrote ${name} and has lost it`)
    const history = this.#history(name)
    if (history.byDot.has(dotOf(made))) {
      return this.#world.violate(`two writes of ${name} have the dot ${dotOf(made)}`)
    }
    const shown = this.#page ?? at.memory.cells.get(name) ?? 0n
    const { value, seq } = made
    const bit = 1n << BigInt(history.writes.length)
    const write: Write = { bit, past: this.#withPasts(history, shown), value, writer, seq }
    history.writes.push(write)
    history.byDot.set(dotOf(made), write)
  }

  /** The row `kind/key` changed at a node, or was forgotten there. */
  saw(at: Watched, kind: string, key: string): void {
    const name = `${kind}/${key}`
    const history = this.#histories.get(name)
    if (history !== undefined) {
      const cell = at.rows.cell(kind, key)
      if (cell === null) this.#forgot(at, name, history)
      else this.#sawCell(at, name, history, cell)
      return
    }
    if (!this.#owned.has(name)) return
    const row = at.rows.owned(kind, key)
    if (row === null) {
      at.memory.owned.delete(name)
      return
    }
    const before = at.memory.owned.get(name)
    if (before !== undefined && compareOwned(row, before) < 0) {
      this.#world.violate(`${name} went back at ${at.name}`)
    }
    at.memory.owned.set(name, row)
  }

  #sawCell(at: Watched, name: string, history: History, cell: Cell): void {
    const known = at.memory.cells.get(name) ?? 0n
    let fresh = 0n
    let visible = 0n
    for (const head of cell.heads) {
      const write = history.byDot.get(dotOf(head))
      if (write === undefined) return this.#world.violate(`nobody wrote ${dotOf(head)} of ${name}`)
      if (write.value !== head.value) this.#world.violate(`${dotOf(head)} of ${name} was changed`)
      if ((known & write.bit) === 0n) this.#believed(at, name, head)
      fresh |= write.bit | write.past
      visible |= write.bit
    }
    const now = known | fresh
    if (history.collected !== 0n && now !== known) {
      this.#world.sometimes('merge after tombstone collection')
    }
    at.memory.cells.set(name, now)
    const wanted = setOf(this.#maximal(history, now))
    const back = history.writes.find(({ bit }) => (visible & ~wanted & bit) !== 0n)
    if (back !== undefined) {
      return this.#world.violate(`${dotOf(back)} of ${name} came back at ${at.name}`)
    }
    const gone = history.writes.find(
      ({ bit }) => (wanted & ~visible & ~history.collected & bit) !== 0n,
    )
    if (gone !== undefined) this.#world.violate(`${at.name} dropped ${dotOf(gone)} of ${name}`)
  }

  /** Invariant 7: nothing is taken over that is further in the future than a minute. */
  #believed(at: Watched, name: string, { writer, stamp }: Head): void {
    // Who is a member waits for no clock.
    if (writer === at.rows.writer || name.startsWith(`${MEMBER_KIND}/`)) return
    if (wallMsOf(stamp) <= at.wallMs() + AHEAD_MS_MAX + 1) return
    this.#world.violate(`${at.name} believes a stamp of the future at ${name}`)
  }

  /** Invariant 9: a tombstone goes only when every disk of the cluster has it, or had it. */
  #forgot(at: Watched, name: string, history: History): void {
    const known = at.memory.cells.get(name) ?? 0n
    const last = this.#maximal(history, known)
    if (last.some(({ value }) => value !== null)) {
      return this.#world.violate(`${at.name} forgot the living ${name}`)
    }
    history.collected |= setOf(last)
    const lacking = at.disks().find(({ cells }) => (known & ~(cells.get(name) ?? 0n)) !== 0n)
    if (lacking !== undefined && !lacking.hasLapsed) {
      this.#world.violate(`${at.name} collected ${name} before everybody had it`)
    }
  }

  /** Everything that one process wrote in a commit: no dot twice, no gap, stamps that grow. */
  announced({ writer, after, upto, rows }: OwnWrite): void {
    const last = this.#lastOf.get(writer) ?? { seq: 0, stamp: 0 }
    if (last.seq !== after) {
      this.#world.violate(`writer ${writer} goes on after ${after}, but had written ${last.seq}`)
    }
    const dots = this.#byWriter.get(writer) ?? new Map<number, string>()
    this.#byWriter.set(writer, dots)
    let { stamp } = last
    for (const raw of rows) {
      const { kind, key, state } = raw as SharedRow
      for (const made of ownDots(state, writer)) {
        if (made.seq <= after) continue
        dots.set(made.seq, `${kind}/${key}`)
        stamp = Math.max(stamp, made.stamp)
        if (made.stamp <= last.stamp && !this.#isWild) {
          this.#world.violate(`writer ${writer} stamped backwards`)
        }
      }
    }
    this.#lastOf.set(writer, { seq: upto, stamp })
  }

  /** Invariant 5: what the vector of a node covers beyond `before`, it has. */
  covered(at: Watched, before: Vector): void {
    for (const [writer, seq] of at.rows.vector()) {
      const dots = this.#byWriter.get(writer)
      if (dots === undefined) continue
      for (let covered = (before.get(writer) ?? 0) + 1; covered <= seq; covered += 1) {
        const name = dots.get(covered)
        if (name !== undefined) this.#has(at, name, writer, covered)
      }
    }
  }

  #has(at: Watched, name: string, writer: string, seq: number): void {
    const history = this.#histories.get(name)
    const write = history?.byDot.get(`${writer} ${seq}`)
    if (history === undefined || write === undefined) return
    if (((at.memory.cells.get(name) ?? 0n) & write.bit) !== 0n) return
    this.#world.violate(`${at.name} covers ${writer} ${seq}, but never saw its ${name}`)
  }

  /**
   * At rest: what survived is visible on every node, and nothing else; a conflict is listed
   * exactly where two of it differ. Gives how many there are.
   */
  agree(nodes: readonly Watched[]): number {
    let conflicts = 0
    for (const [name, history] of this.#histories) {
      const survived = nodes.reduce((all, { memory }) => all | (memory.cells.get(name) ?? 0n), 0n)
      const expected = this.#maximal(history, survived)
      for (const node of nodes) if (this.#agreeOn(node, name, history, expected)) conflicts += 1
    }
    for (const name of this.#owned) {
      const seen = nodes.flatMap(({ memory }) => memory.owned.get(name) ?? [])
      const best = seen.toSorted((a, b) => compareOwned(b, a))[0]
      if (best !== undefined) for (const node of nodes) this.#agreeOnOwned(node, name, best)
    }
    return conflicts
  }

  /** True when the node rightly lists a conflict. */
  #agreeOn(node: Watched, name: string, history: History, expected: readonly Write[]): boolean {
    const cell = node.rows.cell(...split(name))
    const visible = new Set(cell?.heads.map(dotOf))
    const must = expected.filter(({ bit }) => (bit & history.collected) === 0n)
    const lost = must.find((write) => !visible.has(dotOf(write)))
    if (lost !== undefined) {
      this.#world.violate(`${node.name} lost ${dotOf(lost)} of ${name} (${lost.value})`)
    }
    const may = new Set(expected.map(dotOf))
    const back = [...visible].find((dot) => !may.has(dot))
    if (back !== undefined) this.#world.violate(`${back} of ${name} came back at ${node.name}`)
    const shown = expected.filter((write) => visible.has(dotOf(write)))
    const isOne = new Set(shown.map(({ value }) => value)).size > 1
    if (cell !== null && isConflict(cell) !== isOne) {
      this.#world.violate(`${node.name} ${isOne ? 'hides' : 'invents'} a conflict of ${name}`)
    }
    return isOne
  }

  #agreeOnOwned(node: Watched, name: string, best: OwnedRow): void {
    const row = node.rows.owned(...split(name))
    const { untilMs } = row ?? best
    const isOver = untilMs !== null && untilMs < node.wallMs()
    if (isOver || (row === null && best.value === null)) return
    if (row === null || compareOwned(row, best) !== 0) {
      this.#world.violate(`${node.name} has not the last version of ${name}`)
    }
  }

  #history(name: string): History {
    const found = this.#histories.get(name)
    if (found !== undefined) return found
    const history: History = { writes: [], byDot: new Map(), collected: 0n }
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

function setOf(writes: readonly Write[]): bigint {
  return writes.reduce((all, { bit }) => all | bit, 0n)
}

function dotOf({ writer, seq }: { readonly writer: string; readonly seq: number }): string {
  return `${writer} ${seq}`
}

function split(name: string): readonly [kind: string, key: string] {
  const slash = name.indexOf('/')
  return [name.slice(0, slash), name.slice(slash + 1)]
}

function ownDots(
  state: SharedState,
  writer: string,
): readonly { readonly writer: string; readonly seq: number; readonly stamp: number }[] {
  return (state.shape === 'owned' ? [state] : state.heads).filter((dot) => dot.writer === writer)
}
