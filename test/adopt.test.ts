/** The mail of a node that is gone goes on elsewhere; one that comes back gives up what was taken. */
import { describe, expect, test } from 'bun:test'
import type { MessageId } from '../src/base/ids.ts'
import { ranked } from '../src/cluster/rank.ts'
import { standingOf } from '../src/cluster/standing.ts'
import { applyMark } from '../src/store/marks.ts'
import { commitOf, Message } from '../src/store/queued.ts'
import { type Heir, House, IN_DOUBT_MS, MINUTE, PATIENCE } from './heirs.ts'

function ownerOf(house: House, id: MessageId): string {
  const owners = house.heirs.filter(({ power, store }) => power === 'up' && store.get(id) !== null)
  return owners.map(({ name }) => name).join(' ')
}

/** Messages of A of which B is the first to inherit, and of which C is. */
function shared(a: Heir, b: Heir, c: Heir, count: number): { ofB: MessageId[]; ofC: MessageId[] } {
  const ids = Array.from({ length: count }, () => a.accept([b, c]))
  const isOfB = (id: MessageId): boolean => ranked(id, [b.id, c.id])[0] === b.id
  return { ofB: ids.filter(isOfB), ofC: ids.filter((id) => !isOfB(id)) }
}

describe('confirmed dead', () => {
  test('its queue is adopted after 120 s', async () => {
    const house = new House(3)
    const [a, b, c] = house.heirs as [Heir, Heir, Heir]
    const id = a.accept([b])
    house.run(MINUTE)
    a.crash('down')
    house.run(PATIENCE.adoptConfirmedMs - 3_000)
    expect(b.store.get(id)).toBeNull()
    house.run(15_000)
    expect(ownerOf(house, id)).toBe(b.name)
    expect(b.adopted).toEqual([{ ids: [id], why: 'refused', from: a.id }])
    expect(b.count('queue.adopted', '"why":"refused"')).toBe(1)
    expect(c.adopted).toEqual([])
  })

  test('removed: at once', async () => {
    const house = new House(3)
    const [a, b] = house.heirs as [Heir, Heir, Heir]
    const id = a.accept([b])
    house.run(MINUTE)
    a.crash('off')
    house.run(20_000)
    house.remove(a)
    house.run(5_000)
    expect(b.adopted).toEqual([{ ids: [id], why: 'removed', from: a.id }])
    expect(b.store.get(id)?.term).toBe(2)
  })

  test('returned with another spool: at once, what it has never heard of', async () => {
    const house = new House(3)
    const [a, b] = house.heirs as [Heir, Heir, Heir]
    const lost = a.accept([b])
    house.run(MINUTE)
    a.crash('down')
    a.store.restore({ own: [], kept: [] })
    a.spoolId = '00000000000000a2'
    a.restart()
    const fresh = a.accept([b])
    house.run(PATIENCE.confirmedMs + 10_000)
    expect(b.adopted).toEqual([{ ids: [lost], why: 'respooled', from: a.id }])
    expect(b.store.get(lost)?.term).toBe(2)
    expect(b.store.copy(fresh)?.owner).toBe(a.id)
    house.run(30 * MINUTE)
    expect(b.store.get(fresh)).toBeNull()
  })

  test('another spool: whoever has nothing of what was lost is passed over', async () => {
    const house = new House(3)
    const [a, b, c] = house.heirs as [Heir, Heir, Heir]
    const { ofB } = shared(a, b, c, 20)
    for (const id of ofB) b.store.kept.delete(id)
    house.run(MINUTE)
    a.crash('down')
    a.store.restore({ own: [], kept: [] })
    a.spoolId = '00000000000000a2'
    a.restart()
    house.run(PATIENCE.confirmedMs + MINUTE)
    for (const id of ofB) expect(ownerOf(house, id)).toBe(c.name)
  })

  test('another spool while the holder was away is found at its start', async () => {
    const house = new House(3)
    const [a, b] = house.heirs as [Heir, Heir, Heir]
    const lost = a.accept([b])
    house.run(MINUTE)
    b.crash('down')
    a.crash('down')
    a.store.restore({ own: [], kept: [] })
    a.spoolId = '00000000000000a2'
    a.restart()
    house.run(MINUTE)
    b.restart()
    house.run(2 * MINUTE)
    expect(b.store.get(lost)?.term).toBe(2)
  })
})

describe('silent', () => {
  test('adopted after 600 s, if the witness is silent too', async () => {
    const house = new House(3)
    const [a, b] = house.heirs as [Heir, Heir, Heir]
    const id = a.accept([b])
    house.run(MINUTE)
    a.crash('off')
    house.run(PATIENCE.adoptSilentMs - 5_000)
    expect(b.store.get(id)).toBeNull()
    house.run(40_000)
    expect(b.adopted).toEqual([{ ids: [id], why: 'silent', from: a.id }])
  })

  test('not while the witness says that it still delivers', async () => {
    const house = new House(3)
    const [a, b, c] = house.heirs as [Heir, Heir, Heir]
    const id = a.accept([b])
    house.run(MINUTE)
    // Peers do not reach it; its port for mail is open to them.
    for (const other of [b, c]) house.mesh.unlink(a.mesh, other.mesh)
    house.run(30 * MINUTE)
    expect(b.adopted).toEqual([])
    a.isDelivering = false
    house.run(MINUTE)
    expect(b.adopted).toEqual([{ ids: [id], why: 'silent', from: a.id }])
  })

  test('a side that sees less than half of the members waits 1800 s', async () => {
    const house = new House(3)
    const [a, b, c] = house.heirs as [Heir, Heir, Heir]
    const id = a.accept([b])
    house.run(MINUTE)
    house.cut(b, a, c)
    house.run(PATIENCE.adoptMinorityMs - 5_000)
    expect(b.adopted).toEqual([])
    house.run(40_000)
    expect(b.adopted).toEqual([{ ids: [id], why: 'silent', from: a.id }])
  })

  test('a node that was drained for a reboot is left alone for 10 min, also when it refuses', async () => {
    const house = new House(3)
    const [a, b] = house.heirs as [Heir, Heir, Heir]
    const id = a.accept([b])
    house.run(MINUTE)
    a.drain = 'drained'
    a.crash('down')
    house.run(PATIENCE.drainedMs - 10_000)
    expect(b.adopted).toEqual([])
    house.run(MINUTE)
    expect(b.adopted.map(({ ids }) => ids)).toEqual([[id]])
  })

  test('held mail is never adopted on silence alone', async () => {
    const house = new House(3)
    const [a, b] = house.heirs as [Heir, Heir, Heir]
    const held = a.accept([b], ['held', 'done'])
    house.run(MINUTE)
    a.crash('off')
    house.run(60 * MINUTE)
    expect(b.store.get(held)).toBeNull()
    house.remove(a)
    house.run(10_000)
    expect(b.store.get(held)).not.toBeNull()
  })

  test('a holder that slept counts its own sleep as nothing', async () => {
    const house = new House(3)
    const [a, b, c] = house.heirs as [Heir, Heir, Heir]
    a.accept([b])
    house.run(MINUTE)
    b.stop(30 * MINUTE)
    a.crash('off')
    house.run(30 * MINUTE + 100)
    house.join()
    house.run(5 * MINUTE)
    expect([b.adopted, c.adopted]).toEqual([[], []])
    house.run(6 * MINUTE)
    expect(b.adopted).toHaveLength(1)
  })
})

describe('who adopts', () => {
  test('the living holder of highest rank, each message once', async () => {
    const house = new House(4)
    const [a, b, c, d] = house.heirs as [Heir, Heir, Heir, Heir]
    const { ofB, ofC } = shared(a, b, c, 40)
    expect([ofB.length > 5, ofC.length > 5]).toEqual([true, true])
    house.run(MINUTE)
    a.crash('down')
    house.run(3 * MINUTE)
    expect([...b.store.own.keys()].sort()).toEqual([...ofB].sort())
    expect([...c.store.own.keys()].sort()).toEqual([...ofC].sort())
    expect(d.store.own.size).toBe(0)
    // And each knows who has the other part.
    for (const id of ofB) expect(c.store.copy(id)).toMatchObject({ owner: b.id, term: 2 })
    for (const id of ofC) expect(b.store.copy(id)).toMatchObject({ owner: c.id, term: 2 })
  })

  test('holders that are dead here are passed over', async () => {
    const house = new House(4)
    const [a, b, c] = house.heirs as [Heir, Heir, Heir, Heir]
    const { ofB, ofC } = shared(a, b, c, 20)
    house.run(MINUTE)
    a.crash('down')
    b.crash('down')
    house.run(4 * MINUTE)
    expect([...c.store.own.keys()].sort()).toEqual([...ofB, ...ofC].sort())
  })

  test('a holder that has nothing of it is passed over', async () => {
    const house = new House(3)
    const [a, b, c] = house.heirs as [Heir, Heir, Heir]
    const { ofB } = shared(a, b, c, 20)
    for (const id of ofB) b.store.kept.delete(id)
    house.run(MINUTE)
    a.crash('down')
    house.run(4 * MINUTE)
    for (const id of ofB) expect(ownerOf(house, id)).toBe(c.name)
  })

  test('more messages than one question holds', async () => {
    const house = new House(3)
    const [a, b, c] = house.heirs as [Heir, Heir, Heir]
    const ids = Array.from({ length: 2_300 }, () => a.accept([b, c]))
    house.run(10_000)
    house.remove(a)
    a.crash('off')
    house.run(20_000)
    expect(b.store.own.size + c.store.own.size).toBe(ids.length)
    expect(b.store.kept.size + c.store.kept.size).toBe(ids.length)
  })

  test('a node behind its own barrier, or that is joining, adopts nothing', async () => {
    const house = new House(3)
    const [a, b] = house.heirs as [Heir, Heir, Heir]
    const id = a.accept([b])
    house.run(10_000)
    b.isJoined = false
    house.remove(a)
    house.run(MINUTE)
    expect(b.store.get(id)).toBeNull()
    b.isJoined = true
    house.run(5_000)
    expect(b.store.get(id)).not.toBeNull()
  })
})

describe('what is kept', () => {
  test('ADOPT is durable before anybody hears of it', async () => {
    const house = new House(4)
    const [a, b, c] = house.heirs as [Heir, Heir, Heir, Heir]
    const { ofB } = shared(a, b, c, 10)
    const [id] = ofB as [MessageId]
    house.run(10_000)
    const disk = Promise.withResolvers<void>()
    b.store.hold = disk.promise
    house.remove(a)
    house.run(MINUTE)
    expect(b.adopted).toEqual([])
    expect(c.store.copy(id)?.owner).toBe(a.id)
    b.store.hold = null
    disk.resolve()
    house.run(MINUTE)
    expect(b.adopted).toHaveLength(1)
    expect(c.store.copy(id)).toMatchObject({ owner: b.id, term: 2 })
  })

  test('attempts, next try and expiry stay as they were', async () => {
    const house = new House(3)
    const [a, b] = house.heirs as [Heir, Heir, Heir]
    const id = a.accept([b], ['deferred'])
    const copy = b.store.copy(id)
    const [recipient] = copy?.recipients ?? []
    if (copy === null || recipient === undefined) throw new Error('no copy')
    Object.assign(recipient, { attempts: 3, nextTryMs: 12_345, lastReply: '451 later' })
    const { expiresMs } = copy.commit
    house.run(10_000)
    house.remove(a)
    house.run(10_000)
    const [now] = b.store.get(id)?.recipients ?? []
    expect(now).toMatchObject({ attempts: 3, nextTryMs: 12_345, lastReply: '451 later' })
    expect(b.store.get(id)?.commit.expiresMs).toBe(expiresMs)
  })

  test('each delivery counts as a possible duplicate; what was tried waits as in doubt', async () => {
    const house = new House(3)
    const [a, b] = house.heirs as [Heir, Heir, Heir]
    const id = a.accept([b], ['queued', 'queued', 'queued'])
    a.mark(id, 'trying', [b], 0)
    a.mark(id, 'done', [b], 1)
    house.run(10_000)
    house.remove(a)
    house.run(10_000)
    const [tried, done, queued] = b.store.get(id)?.recipients ?? []
    expect(tried).toMatchObject({ state: 'inDoubt', doubtful: true })
    expect((tried?.nextTryMs ?? 0) - b.wallMs()).toBeGreaterThan(IN_DOUBT_MS - 15_000)
    expect(done).toMatchObject({ state: 'done', doubtful: false })
    expect(queued).toMatchObject({ state: 'queued', doubtful: true })
    // After a restart, too.
    const marks = b.store.marks.filter(({ r }) => r[0] !== 1)
    expect(marks.slice(-3)).toMatchObject([
      { kind: 'defer', r: [0], doubt: true },
      { kind: 'try', r: [0] },
      { kind: 'defer', r: [2], doubt: true },
    ])
  })

  test('marks that only another holder has are asked for before it is taken', async () => {
    const house = new House(4)
    const [a, b, c] = house.heirs as [Heir, Heir, Heir, Heir]
    const { ofB } = shared(a, b, c, 10)
    const [id] = ofB as [MessageId]
    a.mark(id, 'done', [c])
    house.run(10_000)
    house.remove(a)
    house.run(10_000)
    expect(b.stateOf(id)).toBe('done')
    expect(b.adopted.flatMap(({ ids }) => ids)).not.toContain(id)
  })

  test('a failing disk adopts later, not never', async () => {
    const house = new House(3)
    const [a, b] = house.heirs as [Heir, Heir, Heir]
    const id = a.accept([b])
    house.run(10_000)
    b.store.isBroken = true
    house.remove(a)
    house.run(10_000)
    expect(b.adopted).toEqual([])
    b.store.isBroken = false
    house.run(10_000)
    expect(b.adopted.map(({ ids }) => ids)).toEqual([[id]])
  })
})

describe('an owner that comes back', () => {
  test('hands over its marks, then drops exactly what was taken', async () => {
    const house = new House(4)
    const [a, b, c, d] = house.heirs as [Heir, Heir, Heir, Heir]
    // Three messages on three different mirrors, and one that nobody took.
    const ids = [a.accept([b], ['queued', 'queued']), a.accept([c]), a.accept([d])] as const
    const alone = a.accept([])
    house.run(MINUTE)
    // The batch with these marks never left.
    a.mark(ids[0], 'done', [], 0)
    a.mark(ids[0], 'trying', [], 1)
    a.stop(15 * MINUTE)
    house.run(15 * MINUTE + 10)
    expect([b, c, d].map(({ adopted }) => adopted.length)).toEqual([1, 1, 1])
    // Before it hears anything it knows by its clock that it must not act.
    for (const id of ids) expect(a.mayAct(id)).toBe(false)
    expect(a.mayAct(alone)).toBe(true)
    house.join()
    house.run(10_000)
    for (const [index, heir] of [b, c, d].entries()) {
      const id = ids[index] as MessageId
      expect(a.store.get(id)).toBeNull()
      expect(a.store.copy(id)).toMatchObject({ owner: heir.id, term: 2 })
      expect(heir.store.get(id)).not.toBeNull()
    }
    expect(a.store.get(alone)).not.toBeNull()
    expect(a.count('queue.yielded')).toBe(3)
    expect(b.stateOf(ids[0], 0)).toBe('done')
    expect(b.stateOf(ids[0], 1)).toBe('inDoubt')
    // The new owner knows that the old one has a copy: it is to forget it when all is done.
    expect(b.store.get(ids[0])?.holders.get(a.id)).toBe('kept')
    expect(a.freed).toContain(ids[0])
  })

  test('an attempt that ends after that is told to the new owner', async () => {
    const house = new House(3)
    const [a, b] = house.heirs as [Heir, Heir, Heir]
    const id = a.accept([b])
    house.run(MINUTE)
    const message = a.store.get(id)
    const [recipient] = message?.recipients ?? []
    if (message === null || recipient === undefined) throw new Error('no message')
    // The dot left before it was stopped.
    recipient.state = 'trying'
    a.store.mark('try', message, [0])
    a.stop(15 * MINUTE)
    house.run(15 * MINUTE + 10)
    house.join()
    house.run(10_000)
    expect(b.stateOf(id)).toBe('inDoubt')
    // What the next owner says of its own attempts is no end of this one.
    a.store.markCopy(id, 'defer', { r: [0] })
    house.run(10_000)
    expect(b.stateOf(id)).toBe('inDoubt')
    a.store.mark('done', message, [0])
    recipient.state = 'done'
    house.run(10_000)
    expect(b.stateOf(id)).toBe('done')
    expect(b.resolved).toEqual([{ id, index: 0, how: 'once', from: a.id }])
  })

  test('an attempt is said to be one from its TRY on: before that its dot is not out', () => {
    const house = new House(2)
    const [a, b] = house.heirs as [Heir, Heir]
    const id = a.accept([b])
    const own = a.store.get(id) as Message
    for (const recipient of own.recipients) recipient.state = 'trying'
    expect(standingOf(a.store, id)?.states).toEqual(['queued'])
    a.store.mark('try', own, [0])
    expect(standingOf(a.store, id)?.states).toEqual(['trying'])
  })

  test('a peer that knows of the adoption says so in place of the adopter (STALE)', async () => {
    const house = new House(3)
    const [a, b, c] = house.heirs as [Heir, Heir, Heir]
    const id = a.accept([b])
    house.run(10_000)
    await a.succession.stale([{ id, owner: c.id, term: 2 }])
    expect(a.store.copy(id)).toMatchObject({ owner: c.id, term: 2 })
    // The same or a lower title changes nothing.
    const other = a.accept([b])
    await a.succession.stale([{ id: other, owner: '0000000000000001' as Heir['id'], term: 1 }])
    expect(a.store.get(other)).not.toBeNull()
  })

  test('a peer that names an heir who was removed before: it is adopted anew', async () => {
    const house = new House(3)
    const [a, b, c] = house.heirs as [Heir, Heir, Heir]
    c.crash('off')
    house.remove(c)
    const own = a.accept([b])
    house.run(MINUTE)
    await a.succession.stale([{ id: own, owner: c.id, term: 2 }])
    expect(a.store.get(own)).toBeNull()
    house.run(10_000)
    expect(ownerOf(house, own)).not.toBe('')
    // The same of a copy, whose owner is told of later.
    const copy = b.accept([a])
    house.run(MINUTE)
    b.store.own.delete(copy)
    await a.succession.stale([{ id: copy, owner: c.id, term: 2 }])
    house.run(10_000)
    expect(a.store.get(copy)?.term).toBe(3)
  })

  test('what was done before it was taken over is told to who says that it is his (STALE)', async () => {
    const house = new House(3)
    const [a, b] = house.heirs as [Heir, Heir, Heir]
    const id = a.accept([b])
    house.run(10_000)
    await b.store.adopt([{ id, term: 2 }])
    a.store.own.delete(id)
    a.store.fates.set(id, { id, owner: a.id, term: 1, states: ['done'] })
    await a.succession.stale([{ id, owner: b.id, term: 2 }])
    // Every holder has said that it forgot it.
    a.store.fates.delete(id)
    house.run(10_000)
    expect(b.stateOf(id)).toBe('done')
  })

  test('until that is written down it stays silent about it', async () => {
    const house = new House(3)
    const [a, b, c] = house.heirs as [Heir, Heir, Heir]
    const id = a.accept([b])
    house.run(10_000)
    a.store.isBroken = true
    await a.succession.stale([{ id, owner: c.id, term: 2 }])
    expect(a.store.get(id)).not.toBeNull()
    expect(a.mayAct(id)).toBe(false)
    a.store.isBroken = false
    await a.succession.stale([{ id, owner: c.id, term: 2 }])
    expect(a.store.copy(id)?.owner).toBe(c.id)
  })
})

describe('what an adoption left in doubt', () => {
  /** A has died; B delivers what it took over, and A comes back with what its own disk knows. */
  function taken(): { house: House; a: Heir; b: Heir; id: MessageId } {
    const house = new House(2)
    const [a, b] = house.heirs as [Heir, Heir]
    const id = a.accept([b], Array(6).fill('queued'))
    house.run(MINUTE)
    // B has heard that these are tried, and not what became of it.
    for (const index of [2, 5]) a.mark(id, 'trying', [b], index)
    a.crash('down')
    house.run(PATIENCE.adoptConfirmedMs + 15_000)
    expect(ownerOf(house, id)).toBe(b.name)
    return { house, a, b, id }
  }

  function deliver(at: Heir, id: MessageId, index: number): void {
    const message = at.store.get(id) as Message
    const [recipient] = message.recipients.slice(index)
    if (recipient !== undefined) recipient.state = 'trying'
    at.store.mark('try', message, [index])
    at.store.mark('done', message, [index])
    at.mark(id, 'done', [], index)
  }

  test('ends with the word of the former owner: once, twice, or not at all', () => {
    const { house, a, b, id } = taken()
    for (const index of [0, 4]) deliver(b, id, index)
    for (const index of [0, 3]) a.mark(id, 'done', [], index)
    a.mark(id, 'deferred', [], 5)
    b.freed.length = 0
    a.restart()
    house.run(MINUTE)
    const from = a.id
    expect(b.resolved).toEqual([
      { id, index: 0, how: 'twice', from },
      { id, index: 1, how: 'open', from },
      { id, index: 3, how: 'once', from },
      { id, index: 4, how: 'once', from },
      { id, index: 5, how: 'open', from },
    ])
    const stands = b.store.get(id)?.recipients.map(({ state, doubtful }) => [state, doubtful])
    expect(stands).toEqual([
      ['done', true],
      ['queued', false],
      // It was cut off there too: nobody will ever know.
      ['inDoubt', true],
      ['done', true],
      ['done', true],
      ['deferred', false],
    ])
    // It waits no longer, also after a restart.
    expect(b.freed).toContain(id)
    expect(b.store.get(id)?.recipients[5]?.nextTryMs).toBeLessThanOrEqual(b.wallMs())
    expect(b.store.marks.at(-1)).toMatchObject({ kind: 'defer', r: [5], doubt: false })
    expect(b.count('queue.resolved', '"how":"twice"')).toBe(1)
  })

  test('also when all of it is done by then, and the former owner has heard so first', () => {
    const { house, a, b, id } = taken()
    for (let index = 0; index < 6; index += 1) deliver(b, id, index)
    expect(b.store.fate(id)).not.toBeNull()
    a.mark(id, 'done', [], 1)
    house.run(10_000)
    a.restart()
    house.run(MINUTE)
    expect(b.resolved.map(({ index, how }) => [index, how])).toEqual([
      [0, 'once'],
      [1, 'twice'],
      [3, 'once'],
      [4, 'once'],
    ])
  })

  test('stays where the former owner had ended everything itself', () => {
    const { house, a, b, id } = taken()
    for (let index = 0; index < 6; index += 1) {
      deliver(b, id, index)
      a.mark(id, 'done', [], index)
    }
    a.restart()
    house.run(MINUTE)
    expect(b.resolved.map(({ how }) => how)).toEqual(Array(6).fill('twice'))
  })

  test('is not cleared by a disk that went back in time, nor for what was tried here since', () => {
    const { house, a, b, id } = taken()
    const recipient = b.store.get(id)?.recipients[1]
    Object.assign(recipient ?? {}, { state: 'deferred', attempts: 1, doubtful: true })
    a.restart()
    house.run(MINUTE)
    expect(b.resolved.map(({ index }) => index)).toEqual([0, 3, 4])
    expect(recipient?.doubtful).toBeTrue()
    const other = taken()
    other.a.epoch = -1
    other.b.epoch += 1
    other.a.restart()
    other.house.run(MINUTE)
    expect(other.a.count('node.rolledBack')).toBe(1)
    expect(other.b.resolved).toEqual([])
  })

  test('is not ended after a restart for what a third node says: it may have been done here', () => {
    const house = new House(3)
    const [a, b, c] = house.heirs as [Heir, Heir, Heir]
    const id = a.accept([b], Array(3).fill('queued'))
    house.run(MINUTE)
    a.crash('down')
    house.run(PATIENCE.adoptConfirmedMs + 15_000)
    const image = b.store.image()
    // C gets a copy after that, and hears of a delivery.
    const copy = new Message(id, commitOf(b.store.get(id) as Message, 0))
    applyMark(copy, 'done', { r: [0] })
    c.store.kept.set(id, copy)
    b.store.restore(image)
    const places = new Map([0, 1, 2].map((index) => [index, 0]))
    Object.assign(b.store.get(id) ?? {}, { adoption: { from: a.id, places } })
    b.restart()
    house.run(2 * MINUTE)
    expect([b.stateOf(id, 0), b.count('node.rolledBack')]).toEqual(['done', 0])
    for (const index of [0, 1]) a.mark(id, 'done', [], index)
    a.restart()
    house.run(MINUTE)
    expect(b.resolved.map(({ index, how }) => [index, how])).toEqual([
      [1, 'once'],
      [2, 'open'],
    ])
  })
})

describe('two that adopt at once', () => {
  test('of equal terms the higher node id wins, and the marks of both count', async () => {
    const house = new House(4)
    const [a, b, c, d] = house.heirs as [Heir, Heir, Heir, Heir]
    house.run(MINUTE)
    const id = a.accept([b, c], ['queued', 'queued', 'queued'])
    a.crash('off')
    // Two sides of two (one of them the dead one): neither is less than half.
    house.cut(b, c)
    house.cut(d, c)
    c.absences.isMinority
    house.run(31 * MINUTE + 40_000)
    expect([b.store.get(id)?.term, c.store.get(id)?.term]).toEqual([2, 2])
    b.mark(id, 'done', [], 0)
    c.mark(id, 'done', [], 1)
    house.heal()
    house.run(MINUTE)
    const [low, high] = b.id < c.id ? [b, c] : [c, b]
    expect(low.store.copy(id)).toMatchObject({ owner: high.id, term: 2 })
    expect(high.store.get(id)).toMatchObject({ owner: high.id, term: 2 })
    expect([0, 1, 2].map((index) => high.stateOf(id, index))).toEqual(['done', 'done', 'queued'])
  })

  test('while one is still writing it down, nobody is told that nothing happened', async () => {
    const house = new House(3)
    const [a, b] = house.heirs as [Heir, Heir, Heir]
    const id = a.accept([b])
    house.run(MINUTE)
    a.crash('down')
    const disk = Promise.withResolvers<void>()
    b.store.hold = disk.promise
    house.run(PATIENCE.adoptConfirmedMs + 10_000)
    // It starts again in the moment in which it is adopted.
    a.restart()
    house.run(10_000)
    expect(a.mayAct(id)).toBe(false)
    b.store.hold = null
    disk.resolve()
    house.run(10_000)
    expect(ownerOf(house, id)).toBe(b.name)
    expect(a.store.copy(id)?.term).toBe(2)
  })
})
