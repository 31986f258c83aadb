/** Jobs of the cluster: one node does each slot, another one when that is gone, twice only apart. */
import { expect, test } from 'bun:test'
import { StoreError } from '../src/base/errors.ts'
import type { NodeId } from '../src/base/ids.ts'
import type { Member } from '../src/cluster/contract.ts'
import { JOB_KIND, Jobs } from '../src/cluster/jobs.ts'
import { ranked } from '../src/cluster/rank.ts'
import { Mesh, type MeshNode } from './mesh.ts'

const HOUR_MS = 3_600_000

type Side = { readonly node: MeshNode; readonly jobs: Jobs; readonly did: number[] }

class World {
  readonly mesh = new Mesh()
  readonly sides: readonly Side[]
  readonly drains = new Map<NodeId, Member['drain']>()
  /** What a run does before it is done; a slot that fails. */
  run: (side: Side, slot: number) => Promise<void> = async () => {}
  isCaughtUp = true

  constructor(count: number) {
    this.mesh.add(count)
    this.sides = this.mesh.nodes.map((node) => this.#side(node))
    this.mesh.join()
  }

  #side(node: MeshNode): Side {
    const { roster } = node
    const jobs = new Jobs({
      clock: node,
      observer: node.observer,
      rows: node.replica,
      roster: {
        self: roster.self,
        members: () =>
          roster
            .members()
            .map((member) => ({ ...member, drain: this.drains.get(member.node) ?? 'accepting' })),
      },
      members: { get: (id) => ({ life: node.links.open.has(id) ? 'alive' : 'dead' }) },
      patience: { jobMs: 600_000 },
      isCaughtUp: () => this.isCaughtUp,
    })
    const side: Side = { node, jobs, did: [] }
    jobs.add({
      name: 'sweep',
      slotMs: HOUR_MS,
      run: async (slot) => {
        await this.run(side, slot)
        side.did.push(slot)
        return `slot ${slot}`
      },
    })
    return side
  }

  get slot(): number {
    return Math.floor((this.sides[0] as Side).node.wallMs() / HOUR_MS)
  }

  /** Who is to do the slot of now, the first one first. */
  get order(): readonly Side[] {
    const nodes = this.sides.map(({ node }) => node.id)
    return ranked(`sweep ${this.slot}`, nodes).map(
      (id) => this.sides.find(({ node }) => node.id === id) as Side,
    )
  }

  async nextSlot(): Promise<void> {
    for (const { node } of this.sides) node.skewMs += HOUR_MS
    await this.mesh.runAsync(40_000)
  }

  get did(): readonly number[] {
    return this.sides.flatMap(({ did }) => did)
  }
}

test('each slot is done once, by the node of highest rank, and not always by the same', async () => {
  const world = new World(3)
  await world.mesh.runAsync(40_000)
  const doers = new Set<Side>()
  for (let at = 0; at < 12; at++) {
    await world.nextSlot()
    const [first] = world.order
    expect(first?.did.at(-1)).toBe(world.slot)
    if (first !== undefined) doers.add(first)
  }
  expect(new Set(world.did).size).toBe(world.did.length)
  expect(world.did).toHaveLength(13)
  expect(doers.size).toBe(3)
  const row = world.sides[0]?.node.replica.owned(JOB_KIND, 'sweep')
  expect(row?.version[0]).toBe(world.slot)
  expect(JSON.parse(row?.value ?? '')).toMatchObject({ result: `slot ${world.slot}` })
})

test('when the first does not do it, the next in rank does after ten minutes, and only that one', async () => {
  const world = new World(3)
  world.run = async (side) => {
    if (side === world.order[0]) throw new StoreError('no', { remedy: 'retry' })
  }
  await world.mesh.runAsync(9 * 60_000)
  expect(world.did).toEqual([])
  await world.mesh.runAsync(2 * 60_000)
  const [first, second] = world.order
  expect(second?.did).toEqual([world.slot])
  first?.node.observer.flush()
  expect(first?.node.count('job.failed')).toBeGreaterThan(10)
  await world.mesh.runAsync(15 * 60_000)
  expect(world.did).toHaveLength(1)
})

test('one that is away or drains has no turn: the others do not wait for it', async () => {
  for (const how of ['dead', 'drained'] as const) {
    const world = new World(3)
    world.isCaughtUp = false
    await world.mesh.runAsync(20_000)
    const [first, second] = world.order as [Side, Side]
    if (how === 'dead') first.node.crash()
    else world.drains.set(first.node.id, 'drained')
    world.isCaughtUp = true
    await world.mesh.runAsync(30_000)
    expect(second.did).toEqual([world.slot])
    expect(first.did).toEqual([])
  }
})

test('apart both sides do it once each; together again the row is one', async () => {
  const world = new World(2)
  const [a, b] = world.sides as [Side, Side]
  await world.mesh.runAsync(40_000)
  world.mesh.unlink(a.node, b.node)
  await world.nextSlot()
  expect([a.did.at(-1), b.did.at(-1)]).toEqual([world.slot, world.slot])
  world.mesh.join()
  await world.mesh.runAsync(40_000)
  expect(a.node.replica.owned(JOB_KIND, 'sweep')).toEqual(b.node.replica.owned(JOB_KIND, 'sweep'))
  expect(world.did.filter((slot) => slot === world.slot)).toHaveLength(2)
})

test('a node that has not heard the others yet does nothing; one job does not run beside itself', async () => {
  const world = new World(1)
  world.isCaughtUp = false
  await world.mesh.runAsync(60_000)
  expect(world.did).toEqual([])
  world.isCaughtUp = true
  let running = 0
  world.run = (side) => {
    running += 1
    return new Promise((resolve) => side.node.after(60_000, resolve))
  }
  await world.mesh.runAsync(50_000)
  expect(running).toBe(1)
  await world.mesh.runAsync(60_000)
  expect(world.did).toEqual([world.slot])
})

test('a job with an offset begins its slots so long after the full ones, on all nodes alike', async () => {
  const world = new World(3)
  const offsetMs = 20 * 60_000
  const did: number[] = []
  for (const { node, jobs } of world.sides) {
    jobs.add({
      name: 'ask',
      slotMs: HOUR_MS,
      offsetMs,
      run: async () => {
        did.push(node.wallMs())
        return ''
      },
    })
  }
  await world.mesh.runAsync(40_000)
  did.length = 0
  for (let at = 0; at < 3; at++) await world.mesh.runAsync(HOUR_MS)
  expect(did).toHaveLength(3)
  for (const atMs of did) expect((atMs - offsetMs) % HOUR_MS).toBeLessThan(60_000)
})
