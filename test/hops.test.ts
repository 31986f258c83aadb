/** What a next hop takes, for all nodes together: its share, one at a time when it is down, its return. */
import { expect, test } from 'bun:test'
import { Hops } from '../src/mail/queue/hops.ts'
import { type Teller, type Tellers, tellers } from './tellers.ts'

const HOP = 'mx example.com'

/** The worker of one node, as far as one hop is concerned. */
class Worker {
  readonly teller: Teller
  readonly hops: Hops
  ready = 0
  active = 0
  ended = 0
  most = 0
  isUp = true

  constructor(teller: Teller, all: World) {
    this.teller = teller
    const { node, tally } = teller
    this.hops = new Hops({ clock: node, tally, most: () => 21, freed: () => this.fill(all) })
  }

  fill(all: World): void {
    while (this.ready > 0 && this.hops.mayBegin(HOP, this.active)) {
      this.ready -= 1
      this.active += 1
      this.most = Math.max(this.most, this.active)
      this.hops.begun(HOP)
      all.began()
      this.teller.node.after(all.attemptMs, () => {
        this.active -= 1
        this.ended += 1
        this.hops.ended(HOP, all.isReached)
        this.fill(all)
      })
    }
    if (this.ready === 0 && this.active === 0) this.hops.forget(HOP)
  }
}

class World {
  readonly tellers: Tellers
  readonly workers: readonly Worker[]
  attemptMs = 500
  isReached = true
  /** Attempts at a time, in all. */
  most = 0

  constructor(count: number) {
    this.tellers = tellers(count)
    this.workers = this.tellers.sides.map((side) => new Worker(side, this))
  }

  began(): void {
    const now = this.workers.reduce((sum, { active }) => sum + active, 0)
    this.most = Math.max(this.most, now)
  }

  give(...ready: readonly number[]): void {
    for (const [at, worker] of this.workers.entries()) {
      worker.ready += ready[at] ?? 0
      worker.fill(this)
    }
  }

  /** Until all know that the hop is down, and what ran has ended. */
  learn(): void {
    this.isReached = false
    this.give(...this.workers.map(() => 10))
    this.run(10_000)
    this.most = 0
  }

  run(ms: number): void {
    this.tellers.mesh.run(ms)
  }

  get ready(): number {
    return this.workers.reduce((sum, { ready }) => sum + ready, 0)
  }
}

test('nodes share the connections of a hop', () => {
  const world = new World(3)
  world.give(300, 300, 300)
  world.run(5_000)
  expect(world.workers.map(({ most }) => most)).toEqual([7, 7, 7])
  expect(world.most).toBe(21)
  world.run(60_000)
  expect(world.ready).toBe(0)
})

test('a hop that is down gets one attempt at a time in the whole cluster, and nobody starves', () => {
  const world = new World(3)
  world.learn()
  world.attemptMs = 2_000
  world.give(60, 60, 60)
  world.run(20 * 60_000)
  expect(world.most).toBe(1)
  expect(world.ready).toBe(0)
})

test('the turn goes round while several have mail for it', () => {
  const world = new World(3)
  world.learn()
  world.attemptMs = 2_000
  const before = world.workers.map(({ ended }) => ended)
  world.give(1_000, 1_000, 1_000)
  world.run(10 * 60_000)
  for (const [at, { ended }] of world.workers.entries()) {
    expect(ended - (before[at] ?? 0)).toBeGreaterThan(60)
  }
  expect(world.most).toBe(1)
})

test('who alone has mail for a hop that is down need not wait long for the others', () => {
  for (const at of [0, 1, 2]) {
    const world = new World(3)
    world.learn()
    world.run(40_000)
    const [one] = [world.workers[at]]
    const before = one?.ended ?? 0
    world.give(...[0, 1, 2].map((place) => (place === at ? 1 : 0)))
    world.run(5_000)
    expect((one?.ended ?? 0) - before).toBe(1)
  }
})

test('when it answers one node, all have their share again', () => {
  const world = new World(3)
  world.learn()
  world.give(500, 500, 500)
  world.run(10_000)
  expect(world.most).toBe(1)
  world.isReached = true
  world.run(30_000)
  expect(world.most).toBeGreaterThan(10)
  world.run(60_000)
  expect(world.ready).toBe(0)
})

test('what a node has learnt is known to one that had nothing for that hop', () => {
  const world = new World(2)
  const [a, b] = world.workers as [Worker, Worker]
  world.isReached = false
  world.give(10, 0)
  world.run(8_000)
  b.most = 0
  world.give(0, 10)
  world.run(20_000)
  expect(b.most).toBe(1)
  expect(a.ready + b.ready).toBe(0)
})

test('a node that is seen to be dead holds up the others for 5 s, whatever was left of its turn', () => {
  const world = new World(2)
  world.learn()
  world.attemptMs = 5_000
  world.give(100, 100)
  world.run(20_000)
  const holder = world.workers.find(({ active }) => active === 1) as Worker
  const other = world.workers.find((worker) => worker !== holder) as Worker
  const before = other.ended
  holder.ready = 0
  holder.teller.node.crash()
  world.run(5_000 + world.attemptMs + 1_000)
  expect(other.ended).toBeGreaterThan(before)
})

test('alone, a hop that is down gets one attempt at a time, without a pause', () => {
  const world = new World(1)
  world.learn()
  world.attemptMs = 100
  world.give(100)
  world.run(10_500)
  expect(world.most).toBe(1)
  expect(world.ready).toBe(0)
})
