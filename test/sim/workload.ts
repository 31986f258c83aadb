/**
 * What people and mail do to a simulated cluster: edits of the same and of different rows from
 * every node, stale pages, held mail and its claims, members that come and go, and a node of a
 * later version.
 */
import { RefusalError, StoreError } from '../../src/base/errors.ts'
import type { MessageId } from '../../src/base/ids.ts'
import { canonicalText, type Vector } from '../../src/config/merge.ts'
import { stampOf } from '../../src/config/stamp.ts'
import type { Dice } from './dice.ts'
import { RECIPIENTS } from './held.ts'
import { FUTURE_KIND, type SimNode, tolerate } from './node.ts'
import type { Watched } from './oracle.ts'
import type { Simulation } from './simulate.ts'

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

export class Workload {
  readonly #sim: Simulation
  readonly #dice: Dice
  readonly #pages: Page[] = []
  readonly #held: MessageId[] = []
  /** Where each released copy went, the node with how often it had gone back by then. */
  readonly #released = new Map<string, SimNode[]>()
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

  /** Copies that somebody released and that have not left for the queue of their owner. */
  owed(): readonly string[] {
    const { core } = this.#sim
    const held = core[0]?.run?.held
    return this.#held.flatMap((id) => {
      const { row, copies } = held?.quarantine.one(id) ?? { row: null, copies: [] }
      if (row === null || core.every((node) => node.id !== row.owner.id)) return []
      const places = copies.flatMap(({ claim, place }) => (claim?.kind === 'release' ? place : []))
      return places.map((place) => `${id} ${place}`).filter((copy) => !this.#released.has(copy))
    })
  }

  /** Rows of a later version are on every node as they were written. */
  checkRest(core: readonly Watched[]): void {
    const { world } = this.#sim
    for (const [name, text] of this.#future.rows) {
      const there = core.map(({ rows }) => canonicalText(rows.rowsOf([name])))
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

  /** Mail is held, or somebody somewhere decides about it. */
  #mail(node: SimNode): void {
    const { world } = this.#sim
    const { run } = node
    if (run === null) return
    if (this.#held.length === 0 || this.#dice.chance(0.3)) {
      world.act(() => this.#held.push(run.held.hold()))
      return
    }
    const id = this.#dice.chance(0.5) ? this.#dice.pick(this.#held) : this.#held.at(-1)
    if (id === undefined) return
    const kind = this.#dice.chance(0.7) ? 'release' : 'delete'
    const recipient = this.#dice.pick([null, ...RECIPIENTS])
    world.tell(() => `${node.name} clicks ${kind} of ${id} for ${recipient ?? 'all'}`)
    world.act(() => {
      run.held.click(id, { kind, recipient, anyway: false }).catch((error: unknown) => {
        if (error instanceof RefusalError) {
          if (error.code === 'conflict') world.sometimes('double release attempt')
        } else if (!(error instanceof StoreError)) {
          world.violate(`a click of ${node.name} failed: ${String(error)}`)
        }
      })
    })
  }

  /** One claim only: no recipient gets a mail twice, unless a disk went back or ran twice. */
  released(node: SimNode, copy: string): void {
    const before = this.#released.get(copy) ?? []
    this.#released.set(copy, [...before, node])
    this.#sim.world.tell(() => `${copy} leaves from ${node.name}`)
    if (before.length === 0 || [...before, node].some(({ relapses }) => relapses > 0)) return
    this.#sim.world.violate(`${copy} is released twice`)
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
        future.rows.set(`${FUTURE_KIND}/${key}`, canonicalText([{ kind: FUTURE_KIND, key, state }]))
        world.tell(() => `${node.name} gets a row of a later version`)
      }),
    )
  }

  #changeRoster(node: SimNode): void {
    const sim = this.#sim
    if (this.#dice.chance(0.5)) return this.#join(node)
    if (this.#dice.chance(0.4)) return this.#drain(node)
    const others = sim.core.filter((other) => other !== node)
    // Two that remove each other on two sides of a partition are two clusters, and no fault.
    if (others.length < 2 || this.#hasRemoved) return
    const removed = this.#dice.pick(others)
    const isOut = sim.world.act(() => tolerate(() => node.cluster.roster.evict(removed.id, 'ruiz')))
    if (!isOut) return
    this.#hasRemoved = true
    sim.world.tell(() => `${removed.name} is removed by ${node.name}`)
    removed.isRemoved = true
  }

  #drain(node: SimNode): void {
    const { world, up } = this.#sim
    const drain = this.#dice.pick(['accepting', 'draining', 'drained'] as const)
    const drained = this.#dice.pick(up)
    world.tell(() => `${node.name} wants ${drained.name} ${drain}`)
    world.act(() => tolerate(() => node.cluster.roster.setDrain(drained.id, drain, 'ruiz')))
  }

  /** A node joins by a token of `issuer`; sometimes two try the same one. */
  #join(issuer: SimNode): void {
    const { nodes, world } = this.#sim
    if (nodes.length > 6) return
    const token = world.act(() => {
      let made = ''
      tolerate(() => {
        made = issuer.cluster.invitations.invite({}, 'ruiz').token
      })
      return made
    })
    if (token === '') return
    const { relapses } = issuer
    const use = { joined: 0 }
    for (let count = this.#dice.chance(0.3) ? 2 : 1; count > 0; count -= 1) {
      const joiner = this.#sim.addNode()
      joiner.isRemoved = true
      world.tell(() => `${joiner.name} asks ${issuer.name} to be let in`)
      world.act(() => {
        joiner.join(token, issuer).then(
          () => {
            use.joined += 1
            if (use.joined > 1 && issuer.relapses === relapses) {
              world.violate('a token for one let two in')
            }
            world.sometimes('node joined')
            joiner.isRemoved = false
            joiner.start()
          },
          (error: unknown) => {
            joiner.isDestroyed = true
            if (!(error instanceof RefusalError)) world.violate(`a join failed: ${String(error)}`)
            world.tell(() => `${joiner.name} is not let in: ${String(error)}`)
          },
        )
      })
    }
  }
}
