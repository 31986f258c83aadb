/** How a node that is gone is gone: silent, refused, dead for sure. */
import { describe, expect, test } from 'bun:test'
import { type Heir, House, MINUTE, PATIENCE } from './heirs.ts'

const SOON = PATIENCE.confirmedMs

/** Of two, `a` has said for a minute that it does not run, and `b` is sure of it. */
function confirmed(): { readonly house: House; readonly a: Heir; readonly b: Heir } {
  const house = new House(2)
  const [a, b] = house.heirs as [Heir, Heir]
  house.run(MINUTE)
  a.crash('down')
  house.run(MINUTE)
  expect(b.absences.isConfirmed(a.id)).toBe(true)
  return { house, a, b }
}

describe('while everybody lives', () => {
  test('nobody is dialled, and nobody is asked', async () => {
    const house = new House(4)
    house.run(MINUTE)
    const sent = house.heirs.map(({ mesh }) => mesh.sent.byType.get(9) ?? 0)
    house.run(30 * MINUTE)
    expect(house.heirs.map(({ dials }) => dials)).toEqual([0, 0, 0, 0])
    expect(house.heirs.map(({ mesh }) => mesh.sent.byType.get(9) ?? 0)).toEqual(sent)
  })
})

describe('confirmed dead', () => {
  test('refused at every known address, by every living member, for 15 s', async () => {
    const house = new House(3)
    const [a, b, c] = house.heirs as [Heir, Heir, Heir]
    house.run(MINUTE)
    a.crash('down')
    house.run(SOON - 2_500)
    expect([b.absences.of(a.id).kind, c.absences.of(a.id).kind]).toEqual(['refused', 'refused'])
    while (!b.absences.isConfirmed(a.id)) house.run(100)
    const first = b.absences.of(a.id)
    expect('refusedMs' in first ? first.refusedMs : 0).toBeGreaterThanOrEqual(SOON)
    house.run(10_000)
    expect(b.absences.of(a.id)).toMatchObject({ kind: 'confirmed', why: 'refused' })
    expect(c.absences.of(a.id)).toMatchObject({ kind: 'confirmed', why: 'refused' })
    expect(b.count('node.confirmedDead', '"why":"refused"')).toBe(1)
  })

  test('not while one living member is not refused', async () => {
    const house = new House(3)
    const [a, b, c] = house.heirs as [Heir, Heir, Heir]
    house.run(MINUTE)
    a.crash('down')
    // C cannot reach the machine at all: perhaps it is another one that refuses.
    house.cut(a, c)
    house.run(10 * MINUTE)
    expect(b.absences.of(a.id).kind).toBe('refused')
    expect(c.absences.of(a.id).kind).toBe('silent')
    expect(b.absences.isConfirmed(a.id)).toBe(false)
  })

  test('nor while a living member has a link with it', async () => {
    const house = new House(3)
    const [a, b, c] = house.heirs as [Heir, Heir, Heir]
    house.run(MINUTE)
    house.cut(a, b)
    // A firewall between them answers in the name of A.
    house.forged.add(`${b.host} ${a.host}`)
    house.run(5 * MINUTE)
    expect(b.absences.of(a.id).kind).toBe('refused')
    expect(c.absences.of(a.id).kind).toBe('here')
  })

  test('the port for mail counts as well: a node whose peer port alone refuses is silent', async () => {
    const house = new House(2)
    const [a, b] = house.heirs as [Heir, Heir]
    house.run(MINUTE)
    a.crash('down')
    house.silent.add(`${a.host}:25`)
    house.run(5 * MINUTE)
    expect(b.absences.of(a.id).kind).toBe('silent')
  })

  test('a machine that is switched off is silent, however long', async () => {
    const house = new House(2)
    const [a, b] = house.heirs as [Heir, Heir]
    house.run(MINUTE)
    a.crash('off')
    house.run(20 * MINUTE)
    const absence = b.absences.of(a.id)
    expect(absence.kind).toBe('silent')
    if (absence.kind !== 'silent') return
    expect(absence.silentMs).toBeGreaterThan(20 * MINUTE - 10_000)
    expect(Math.abs(absence.contactBoot - MINUTE)).toBeLessThan(5_000)
  })

  test('one that answers again begins anew', async () => {
    const { house, a, b } = confirmed()
    a.power = 'off'
    house.run(20_000)
    expect(b.absences.of(a.id).kind).toBe('silent')
    a.power = 'down'
    house.run(15_000)
    expect(b.absences.of(a.id).kind).toBe('refused')
    a.restart()
    house.run(5_000)
    expect(b.absences.of(a.id).kind).toBe('here')
  })

  test('nor from the moment on at which it is back', async () => {
    const { house, a, b } = confirmed()
    // Nobody has looked since.
    a.restart()
    expect(b.absences.of(a.id).kind).toBe('here')
    // Gone again before anybody does: all is counted anew.
    a.crash('down')
    house.run(SOON - 2_500)
    expect(b.absences.of(a.id).kind).toBe('refused')
    expect(b.absences.isConfirmed(a.id)).toBe(false)
  })

  test('removed: at once, without any refusal', async () => {
    const house = new House(3)
    const [a, b] = house.heirs as [Heir, Heir, Heir]
    house.run(MINUTE)
    house.remove(a)
    expect(b.absences.of(a.id)).toEqual({ kind: 'confirmed', why: 'removed' })
  })

  test('a node that nobody knows is not gone', () => {
    const house = new House(2)
    expect(house.heir(0).absences.of('ffffffffffffffff' as Heir['id']).kind).toBe('here')
  })
})

describe('what this node slept through', () => {
  test('is no silence of the others, and confirms nothing', async () => {
    const house = new House(2)
    const [a, b] = house.heirs as [Heir, Heir]
    house.run(MINUTE)
    b.stop(30 * MINUTE)
    house.run(30 * MINUTE)
    // Its timers run before anything that waited for it is read.
    house.run(3_000)
    const absence = b.absences.of(a.id)
    expect(absence.kind === 'silent' && absence.silentMs).toBeLessThan(10_000)
    house.join()
    house.run(5_000)
    expect(b.absences.of(a.id).kind).toBe('here')
  })
})

describe('less than half of the members in sight', () => {
  test('one of three is a minority, two of three and one of two are not', async () => {
    const house = new House(3)
    const [a, b, c] = house.heirs as [Heir, Heir, Heir]
    house.cut(a, b, c)
    house.run(MINUTE)
    expect([a, b, c].map(({ absences }) => absences.isMinority)).toEqual([true, false, false])
    const two = new House(2)
    two.cut(two.heir(0), two.heir(1))
    two.run(MINUTE)
    expect(two.heirs.map(({ absences }) => absences.isMinority)).toEqual([false, false])
  })
})
