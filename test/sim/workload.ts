/**
 * What people and mail do to a simulated cluster: edits of the same and of different rows from
 * every node, stale pages, held mail and its claims, members that come and go, and a node of a
 * later version.
 */
import type { Vector } from '../../src/config/merge.ts'
import { stampOf } from '../../src/config/stamp.ts'
import type { Dice } from './dice.ts'
import { FUTURE_KIND, type SimNode } from './node.ts'
import type { Watched } from './oracle.ts'
import { type Simulation, tolerate } from './simulate.ts'

export type WorkRates = {
  /** Mean time between two acts. */
  readonly everyMs: number
  /** Different rows of each kind. */
  readonly rows: number
  /** Shares of the acts, 0..1. */
  readonly stale: number
  readonly held: number
  readonly future: number
  readonly roster: number
  readonly bursts: number
}

const EDITED = ['setting', 'domain', 'allow', 'block', 'operator'] as const
const BURST = 60

/** A page that somebody has open: what it showed, and since when. */
type Page = {
  readonly node: SimNode
  readonly starts: number
  readonly kind: string
  readonly key: string
  readonly seen: Vector
  readonly shown: bigint
}

type HeldMail = { readonly key: string; readonly owner: SimNode }

export class Workload {
  readonly #sim: Simulation
  readonly #dice: Dice
  readonly #pages: Page[] = []
  readonly #held: HeldMail[] = []
  readonly #future = { writer: 'f0f0f0f0f0f0', seq: 0, rows: new Map<string, string>() }
  #isOver = false
  #hasRemoved = false
  #count = 0

  constructor(sim: Simulation) {
    this.#sim = sim
    this.#dice = sim.world.dice.split('work')
  }

  begin(): void {
    this.#next()
  }

  end(): void {
    this.#isOver = true
  }

  /** An edit by somebody who sees all that `node` knows. False: refused. */
  write(node: SimNode, kind: string, key: string, value: string | null): boolean {
    const { world } = this.#sim
    return world.act(() =>
      tolerate(() => {
        node.rows.write(kind, key, value, 'ruiz')
        world.note(`${node.name} ${kind}/${key}`)
        world.tell(() => `${node.name} writes ${kind}/${key} = ${value}`)
      }),
    )
  }

  /** Rows of a later version are on every node as they were written. */
  checkRest(core: readonly Watched[]): void {
    const { world } = this.#sim
    for (const [name, text] of this.#future.rows) {
      const there = core.map(({ rows }) => JSON.stringify(rows.rowsOf([name])))
      if (there.every((one) => one === '[]')) continue
      if (there.some((one) => one !== there[0])) world.violate(`${name} differs between nodes`)
      if (there[0] === text) world.sometimes('unknown kind survived')
      else world.violate(`${name} did not survive as it was written`)
    }
  }

  #next(): void {
    const { world, knobs } = this.#sim
    world.after(this.#dice.exponential(knobs.work.everyMs), () => {
      if (this.#isOver) return
      this.#act()
      this.#next()
    })
  }

  #act(): void {
    const { knobs, up } = this.#sim
    if (up.length === 0) return
    const node = this.#dice.pick(up)
    const { stale, held, future, roster, bursts } = knobs.work
    let left = this.#dice.between(0, 1)
    const isChosen = (part: number): boolean => {
      left -= part
      return left < 0
    }
    if (isChosen(roster)) this.#changeRoster(node)
    else if (isChosen(bursts)) this.#burst(node)
    else if (isChosen(future)) this.#writeFuture(node)
    else if (isChosen(held / 2)) this.#mail(node)
    else if (isChosen(stale / 2)) this.#editFromPage()
    else this.#edit(node)
  }

  #row(): readonly [kind: string, key: string] {
    const kind = this.#dice.pick(EDITED)
    return [kind, `k${this.#dice.below(this.#sim.knobs.work.rows)}`]
  }

  #value(): string | null {
    this.#count += 1
    return this.#dice.chance(0.25) ? null : `{"v":${this.#count}}`
  }

  #edit(node: SimNode): void {
    const [kind, key] = this.#row()
    const { rows } = node
    const cell = rows.cell(kind, key)
    if (cell !== null && this.#dice.chance(this.#sim.knobs.work.stale)) {
      this.#pages.push({
        node,
        starts: node.starts,
        kind,
        key,
        seen: new Map(cell.context),
        shown: this.#sim.oracle.shownAt(node.watched, kind, key),
      })
    }
    this.write(node, kind, key, this.#value())
  }

  /** A tab that was open for a while: it overwrites only what it showed. */
  #editFromPage(): void {
    const { oracle, world } = this.#sim
    const page = this.#pages.shift()
    if (page === undefined || !page.node.isUp || page.node.isRemoved) return
    const { node, kind, key, seen, shown } = page
    // A rollback in between may have taken what was shown.
    if (page.starts !== node.starts) return
    world.act(() =>
      tolerate(() => {
        const value = this.#value()
        oracle.fromPage(shown, () => node.rows.write(kind, key, value, 'kim', seen))
        world.tell(() => `${node.name} writes ${kind}/${key} = ${value} from a stale page`)
      }),
    )
  }

  /** A list is imported, or a domain is emptied. */
  #burst(node: SimNode): void {
    const isDeletion = this.#dice.chance(0.5)
    for (let count = 0; count < BURST; count += 1) {
      if (!node.isUp) return
      this.write(node, 'block', `list${count}`, isDeletion ? null : this.#value())
    }
  }

  /** Mail is held; its owner alone puts a new version. */
  #mail(node: SimNode): void {
    const { world } = this.#sim
    const isNew = this.#held.length === 0 || this.#dice.chance(0.5)
    this.#count += 1
    const mail = isNew ? { key: `m${this.#count}`, owner: node } : this.#dice.pick(this.#held)
    if (isNew) this.#held.push(mail)
    const { owner, key } = mail
    if (!owner.isUp || owner.isRemoved) return
    world.act(() =>
      tolerate(() => {
        const before = owner.rows.owned('held', key)
        if (before === null && !isNew) return
        const [term, revision] = before?.version ?? [1, 0]
        const value = this.#dice.chance(0.1) ? null : `{"state":${this.#count}}`
        owner.rows.put('held', key, [term, revision + 1], value, 'postern', null)
        world.tell(() => `${owner.name} puts held/${key} ${term}.${revision + 1}`)
      }),
    )
  }

  /** A row of a kind, and with fields, that this version has never heard of. */
  #writeFuture(node: SimNode): void {
    const { world } = this.#sim
    const future = this.#future
    const clock = node.run?.clock
    if (clock === undefined) return
    const seq = future.seq + 1
    const key = `k${seq}`
    const head = {
      author: 'ruiz',
      reviewedBy: 'kim',
      seq,
      stamp: stampOf(clock.wallMs()),
      value: '{"depth":3}',
      writer: future.writer,
    }
    const state = { shape: 'cell', context: [[future.writer, seq]], heads: [head] }
    world.act(() =>
      tolerate(() => {
        const as = { kind: 'push', writer: future.writer, after: seq - 1, upto: seq } as const
        node.rows.apply({ peer: node.id, rows: [{ kind: FUTURE_KIND, key, state }], as })
        future.seq = seq
        const stored = JSON.stringify(node.rows.rowsOf([`${FUTURE_KIND}/${key}`]))
        future.rows.set(`${FUTURE_KIND}/${key}`, stored)
        world.tell(() => `${node.name} gets a row of a later version`)
      }),
    )
  }

  #changeRoster(node: SimNode): void {
    const sim = this.#sim
    if (this.#dice.chance(0.5)) {
      if (sim.nodes.length < 7) sim.admit(node)
      return
    }
    const others = sim.core.filter((other) => other !== node)
    // Two that remove each other on two sides of a partition are two clusters, and no fault.
    if (others.length < 2 || this.#hasRemoved) return
    const removed = this.#dice.pick(others)
    const isOut = sim.world.act(() => tolerate(() => node.roster.evict(removed.id, 'ruiz')))
    if (!isOut) return
    this.#hasRemoved = true
    sim.world.tell(() => `${removed.name} is removed by ${node.name}`)
    removed.isRemoved = true
  }
}
