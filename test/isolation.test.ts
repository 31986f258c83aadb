/** The owner that lost its holders goes on until they could take over, and not longer. */
import { describe, expect, test } from 'bun:test'
import { type Heir, House, MINUTE, PATIENCE } from './heirs.ts'
import { MemberWorld } from './members-world.ts'

/** Three nodes that see each other; a mail of the first, of which the second has a copy. */
function settled() {
  const house = new House(3)
  const [a, b, c] = house.heirs as [Heir, Heir, Heir]
  const id = a.accept([b])
  house.run(MINUTE)
  return { house, a, b, c, id }
}

describe('the owner goes on', () => {
  test('until 570 s after the last frame that another holder acknowledged, then it holds', () => {
    const { house, a, b, c, id } = settled()
    house.cut(a, b, c)
    house.run(PATIENCE.isolatedMs - 2_000)
    expect(a.mayAct(id)).toBe(true)
    house.run(4_000)
    expect(a.mayAct(id)).toBe(false)
    expect(a.succession.why(a.store.get(id) as never)).toContain('may have taken it over')
    // It is 30 s before anybody could.
    expect(b.adopted).toEqual([])
  })

  test('where its own questions have no turn, it asks for itself', () => {
    const house = new House(3)
    const [a, b, c] = house.heirs as [Heir, Heir, Heir]
    const id = a.accept([b])
    a.isStarved = true
    for (let minute = 0; minute < 30; minute += 1) {
      house.run(MINUTE)
      expect(a.mayAct(id)).toBe(true)
    }
    house.cut(a, b, c)
    house.run(PATIENCE.isolatedMs + 2_000)
    expect(a.mayAct(id)).toBe(false)
  })

  test('one holder of two is enough', () => {
    const house = new House(4)
    const [a, b, c, d] = house.heirs as [Heir, Heir, Heir, Heir]
    const [one, two] = [a.accept([b, c]), a.accept([b])]
    house.run(MINUTE)
    house.cut(b, a, c, d)
    house.run(15 * MINUTE)
    expect([a.mayAct(one), a.mayAct(two)]).toEqual([true, false])
  })

  test('mail that nobody else has is nobody else’s', () => {
    const house = new House(3)
    const [a, b, c] = house.heirs as [Heir, Heir, Heir]
    house.run(MINUTE)
    house.cut(a, b, c)
    house.run(10 * MINUTE)
    const id = a.accept([])
    expect(a.mayAct(id)).toBe(true)
  })

  test('clusters of two go on, unless they are told to hold', () => {
    const house = new House(2)
    const [a, b] = house.heirs as [Heir, Heir]
    a.isolation = 'deliver'
    const id = a.accept([b])
    house.run(MINUTE)
    house.cut(a, b)
    house.run(20 * MINUTE)
    expect(a.mayAct(id)).toBe(true)
    a.isolation = 'hold'
    expect(a.mayAct(id)).toBe(false)
  })

  test('in a cluster of three the setting changes nothing', () => {
    const house = new House(3)
    const [a, b, c] = house.heirs as [Heir, Heir, Heir]
    a.isolation = 'deliver'
    const id = a.accept([b])
    house.run(MINUTE)
    house.cut(a, b, c)
    house.run(10 * MINUTE)
    expect(a.mayAct(id)).toBe(false)
  })
})

describe('it holds', () => {
  test('until contact: the holder says first how it stands', () => {
    const house = new House(3)
    const [a, b, c] = house.heirs as [Heir, Heir, Heir]
    // B is behind a minority's patience: it has not taken it over.
    const id = a.accept([b])
    house.run(MINUTE)
    house.cut(a, b)
    house.cut(b, c)
    house.run(12 * MINUTE)
    expect(a.mayAct(id)).toBe(false)
    house.heal()
    expect(a.mayAct(id)).toBe(false)
    house.run(5_000)
    expect(a.mayAct(id)).toBe(true)
    expect(a.freed).toContain(id)
  })

  test('contact with a holder that has taken it over frees nothing', () => {
    const { house, a, b, c, id } = settled()
    house.cut(a, b, c)
    house.run(11 * MINUTE)
    expect(b.store.get(id)).not.toBeNull()
    house.heal()
    // From the first moment on, and before any answer.
    for (let step = 0; step < 500; step += 1) {
      house.run(10)
      if (a.store.get(id) !== null) expect(a.mayAct(id)).toBe(false)
    }
    expect(a.store.copy(id)?.owner).toBe(b.id)
  })

  test('until the holders are confirmed dead', () => {
    const { house, a, b, id } = settled()
    b.crash('off')
    house.run(11 * MINUTE)
    expect(a.mayAct(id)).toBe(false)
    b.power = 'down'
    house.run(40_000)
    expect(a.mayAct(id)).toBe(true)
    expect(a.freed).toContain(id)
  })

  test('or are removed', () => {
    const { house, a, b, id } = settled()
    b.crash('off')
    house.run(11 * MINUTE)
    expect(a.mayAct(id)).toBe(false)
    house.remove(b)
    expect(a.mayAct(id)).toBe(true)
  })

  test('or 1800 s: then it is in doubt, and counted once', () => {
    const { house, a, b, c, id } = settled()
    house.cut(a, b, c)
    house.run(PATIENCE.isolatedEndMs - 5_000)
    expect(a.mayAct(id)).toBe(false)
    house.run(10_000)
    expect([a.mayAct(id), a.mayAct(id)]).toEqual([true, true])
    expect(a.freed).toContain(id)
    expect(a.store.get(id)?.recipients[0]?.doubtful).toBe(true)
    expect(a.count('queue.barred', '"why":"isolated"')).toBe(1)
  })
})

describe('the clock', () => {
  test('is the one that goes on while the machine sleeps', () => {
    const { house, a, b, id } = settled()
    a.stop(15 * MINUTE)
    // Its monotonic clock stands still meanwhile.
    house.run(15 * MINUTE)
    a.sleptMs += 15 * MINUTE
    expect(a.mayAct(id)).toBe(false)
    expect(b.store.get(id)).not.toBeNull()
  })

  test('asking why changes nothing', () => {
    const { house, a, b, c, id } = settled()
    house.cut(a, b, c)
    house.run(31 * MINUTE)
    const message = a.store.get(id)
    if (message === null) throw new Error('it is gone')
    expect(a.succession.why(message)).toBeNull()
    expect(message.recipients[0]?.doubtful).toBe(false)
  })
})

describe('who took mail over', () => {
  test('does not wait for the silence of its former owner', () => {
    const { house, a, b, id } = settled()
    a.crash('off')
    house.run(11 * MINUTE)
    expect(b.store.get(id)?.holders.has(a.id)).toBe(true)
    expect(b.mayAct(id)).toBe(true)
    house.run(20 * MINUTE)
    expect(b.mayAct(id)).toBe(true)
    b.restart()
    house.run(2 * MINUTE)
    expect(b.mayAct(id)).toBe(true)
    house.run(15 * MINUTE)
    expect(b.mayAct(id)).toBe(true)
  })

  test('but counts on it again once that one knows that it only keeps a copy', () => {
    const { house, a, b, c, id } = settled()
    house.cut(a, b, c)
    house.run(11 * MINUTE)
    house.heal()
    house.run(MINUTE)
    expect(a.store.copy(id)?.owner).toBe(b.id)
    house.cut(b, a, c)
    house.run(PATIENCE.isolatedMs + 5_000)
    expect([a.store.get(id), b.mayAct(id)]).toEqual([null, false])
    house.run(MINUTE)
    expect(a.store.get(id)?.term).toBe(3)
    expect(b.mayAct(id)).toBe(false)
    house.heal()
    house.run(MINUTE)
    expect(b.store.copy(id)).toMatchObject({ owner: a.id, term: 3 })
  })
})

describe('the last frame that was acknowledged', () => {
  const ackedBoot = (world: MemberWorld, from: number, of: number): number =>
    world.node(from).table?.get(world.node(of).node)?.ackedBoot ?? -1

  test('is the last question that the peer answered itself, by the time at which it left', () => {
    const world = new MemberWorld(1, 3, { hasLinks: false })
    world.run(60_000)
    expect(world.sim.nowMs - ackedBoot(world, 0, 1)).toBeLessThan(65_000)
    // Questions arrive, answers do not; the third one still hears both.
    const { name } = world.node(1)
    const cutMs = world.sim.nowMs
    world.cut('deaf', 'both', (from, to) => from === name && to === world.node(0).name)
    world.run(120_000)
    expect(ackedBoot(world, 0, 1)).toBeLessThanOrEqual(cutMs)
    expect(world.node(0).lifeOf(world.node(1))).toBe('alive')
  })

  test('is as old as its answer was long under way', () => {
    const world = new MemberWorld(2, 2, { hasLinks: false })
    world.delayMs = () => 300
    let last = -1
    let changes = 0
    for (let ms = 0; ms < 30_000; ms += 1) {
      world.run(1)
      const now = ackedBoot(world, 0, 1)
      if (now === last) continue
      changes += 1
      last = now
      expect(world.sim.nowMs - now).toBeGreaterThan(600)
    }
    expect(changes).toBeGreaterThan(5)
  })

  test('answers that waited while this process stood still prove nothing about now', () => {
    const world = new MemberWorld(2, 2, { hasLinks: false })
    world.run(60_000)
    const stoppedMs = world.sim.nowMs
    world.node(0).stall(900_000)
    world.run(900_000)
    // What came in meanwhile is read, new questions are not answered yet.
    expect(ackedBoot(world, 0, 1)).toBeLessThanOrEqual(stoppedMs)
    world.run(10_000)
    expect(ackedBoot(world, 0, 1)).toBeGreaterThan(stoppedMs + 900_000)
  })
})
