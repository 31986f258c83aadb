/** The rejoin barrier: old mail waits for what the others know, new mail does not. */
import { describe, expect, test } from 'bun:test'
import type { MessageId } from '../src/base/ids.ts'
import { type Heir, House, IN_DOUBT_MS, MINUTE, PATIENCE } from './heirs.ts'

/** What became of promises that nobody waited for, once this turn is over. */
async function orphans(act: () => void): Promise<readonly unknown[]> {
  const found: unknown[] = []
  const note = (reason: unknown): void => void found.push(reason)
  process.on('unhandledRejection', note)
  act()
  await new Promise((resolve) => setImmediate(resolve))
  process.off('unhandledRejection', note)
  return found
}

describe('a spool that fails', () => {
  test('while the others answer leaves no promise without an owner: the spool itself tells it', async () => {
    const house = new House(3)
    const [a, b] = house.heirs as [Heir, Heir, Heir]
    const id = a.accept([b])
    b.store.kept.delete(id)
    house.run(MINUTE)
    a.crash('down')
    a.store.isBroken = true
    expect(
      await orphans(() => {
        a.restart()
        house.run(10_000)
      }),
    ).toEqual([])
    expect(a.store.get(id)?.holders.has(b.id)).toBe(true)
  })

  test('while an adoption is told: the same', async () => {
    const house = new House(3)
    const [a, b, c] = house.heirs as [Heir, Heir, Heir]
    const id = a.accept([b, c])
    b.store.copy(id)?.holders.set(c.id, 'sent')
    house.run(MINUTE)
    house.cut(b, c)
    c.isJoined = false
    house.remove(a)
    a.crash('off')
    house.run(10_000)
    expect(b.store.get(id)?.term).toBe(2)
    b.store.isBroken = true
    expect(
      await orphans(() => {
        house.heal()
        house.run(10_000)
      }),
    ).toEqual([])
  })
})

describe('old mail waits', () => {
  test('until every other holder of it has answered', () => {
    const house = new House(3)
    const [a, b] = house.heirs as [Heir, Heir, Heir]
    const id = a.accept([b])
    house.run(MINUTE)
    a.crash('down')
    house.run(10_000)
    a.restart()
    expect(a.mayAct(id)).toBe(false)
    expect(a.succession.why(a.store.get(id) as never)).toContain('started anew')
    house.run(5_000)
    expect(a.mayAct(id)).toBe(true)
    expect(a.freed).toEqual([id])
    expect(a.count('queue.barred')).toBe(0)
  })

  test('new mail flows at once', () => {
    const house = new House(3)
    const [a, b] = house.heirs as [Heir, Heir, Heir]
    const old = a.accept([b])
    house.run(MINUTE)
    b.crash('off')
    a.restart()
    const fresh = a.accept([b])
    expect([a.mayAct(old), a.mayAct(fresh)]).toEqual([false, true])
  })

  test('of a holder in reach and one that is not, both count', () => {
    const house = new House(4)
    const [a, b, c] = house.heirs as [Heir, Heir, Heir, Heir]
    const both = a.accept([b, c])
    const ofB = a.accept([b])
    house.run(MINUTE)
    c.crash('off')
    a.restart()
    house.run(10_000)
    expect([a.mayAct(both), a.mayAct(ofB)]).toEqual([false, true])
    house.run(PATIENCE.barrierMs)
    expect(a.mayAct(both)).toBe(true)
    expect(a.count('queue.barred', '"why":"alone"')).toBe(1)
  })

  test('or 60 s have passed with none of them in reach, and that is counted', () => {
    const house = new House(3)
    const [a, b] = house.heirs as [Heir, Heir, Heir]
    const id = a.accept([b])
    house.run(MINUTE)
    b.crash('off')
    a.restart()
    house.run(PATIENCE.barrierMs - 5_000)
    expect(a.mayAct(id)).toBe(false)
    house.run(10_000)
    expect(a.mayAct(id)).toBe(true)
    expect(a.count('queue.barred', '"why":"alone"')).toBe(1)
  })

  test('the 60 s are those for which this node was awake', () => {
    const house = new House(3)
    const [a, b] = house.heirs as [Heir, Heir, Heir]
    const id = a.accept([b])
    house.run(MINUTE)
    b.crash('off')
    a.restart()
    house.run(5_000)
    a.stop(10 * MINUTE)
    house.run(10 * MINUTE + 3_000)
    expect(a.mayAct(id)).toBe(false)
  })

  test('a holder that was removed is not waited for', () => {
    const house = new House(3)
    const [a, b] = house.heirs as [Heir, Heir, Heir]
    const id = a.accept([b])
    house.run(MINUTE)
    b.crash('off')
    a.restart()
    house.run(10_000)
    house.remove(b)
    house.run(5_000)
    expect(a.mayAct(id)).toBe(true)
  })

  test('none on a node that never had another member', () => {
    const house = new House(1)
    const a = house.heir(0)
    const id = a.accept([])
    a.restart()
    expect(a.mayAct(id)).toBe(true)
    expect(a.succession.isPassed).toBe(true)
  })

  test('nor on one that has nothing old', () => {
    const house = new House(3)
    expect(house.heirs.map(({ succession }) => succession.isPassed)).toEqual([true, true, true])
  })
})

describe('what the others answer', () => {
  test('it was taken over meanwhile: it is given up, nothing is tried twice', () => {
    const house = new House(3)
    const [a, b] = house.heirs as [Heir, Heir, Heir]
    const id = a.accept([b], ['queued', 'queued'])
    house.run(MINUTE)
    a.crash('down')
    house.run(3 * MINUTE)
    expect(b.store.get(id)?.term).toBe(2)
    b.mark(id, 'done', [], 0)
    a.restart()
    house.run(5_000)
    expect(a.store.get(id)).toBeNull()
    expect(a.store.copy(id)).toMatchObject({ owner: b.id, term: 2 })
    expect(a.stateOf(id, 0)).toBe('done')
  })

  test('it was taken over and delivered to all: the final marks are kept', () => {
    const house = new House(3)
    const [a, b] = house.heirs as [Heir, Heir, Heir]
    const id = a.accept([b])
    house.run(MINUTE)
    a.crash('down')
    house.run(3 * MINUTE)
    b.mark(id, 'done', [])
    expect(b.store.fate(id)?.states).toEqual(['done'])
    a.restart()
    house.run(5_000)
    expect(a.store.get(id)).toBeNull()
    expect(a.stateOf(id)).toBe('done')
    // A copy of the new owner's, until that one says that it may go.
    expect(a.store.copy(id)?.owner ?? b.id).toBe(b.id)
  })

  test('a mark that this disk has lost and the holder has is applied', () => {
    const house = new House(3)
    const [a, b] = house.heirs as [Heir, Heir, Heir]
    const id = a.accept([b], ['queued', 'queued', 'queued'])
    const image = a.store.image()
    a.mark(id, 'done', [b], 0)
    a.mark(id, 'trying', [b], 1)
    house.run(MINUTE)
    a.crash('down')
    a.store.restore(image)
    a.restart()
    house.run(5_000)
    expect([0, 1, 2].map((index) => a.stateOf(id, index))).toEqual(['done', 'inDoubt', 'queued'])
    expect(a.mayAct(id)).toBe(true)
  })

  test('a holder that has no copy any more is one no longer, so that another one is made', () => {
    const house = new House(3)
    const [a, b] = house.heirs as [Heir, Heir, Heir]
    const id = a.accept([b])
    b.store.kept.clear()
    a.restart()
    house.run(5_000)
    expect(a.store.get(id)?.holders.size).toBe(0)
    expect(a.mayAct(id)).toBe(true)
  })

  test('500 messages at a time, in any number', () => {
    const house = new House(3)
    const [a, b, c] = house.heirs as [Heir, Heir, Heir]
    for (let index = 0; index < 1_700; index += 1) a.accept([index % 2 === 0 ? b : c])
    a.restart()
    house.run(5_000)
    expect(a.succession.isPassed).toBe(true)
    expect(new Set(a.freed).size).toBe(1_700)
  })
})

describe('who may answer', () => {
  test('a node that is joining does not: it counts as out of reach', () => {
    const house = new House(2)
    const [a, b] = house.heirs as [Heir, Heir]
    const id = a.accept([b])
    house.run(MINUTE)
    b.isJoined = false
    a.restart()
    house.run(PATIENCE.barrierMs - 5_000)
    expect(a.mayAct(id)).toBe(false)
    house.run(10_000)
    expect(a.mayAct(id)).toBe(true)
    expect(a.count('queue.barred', '"why":"alone"')).toBe(1)
  })

  test('what it knows for sure is believed all the same', () => {
    const house = new House(3)
    const [a, b] = house.heirs as [Heir, Heir, Heir]
    const id = a.accept([b])
    house.run(MINUTE)
    a.crash('down')
    house.run(3 * MINUTE)
    b.isJoined = false
    a.restart()
    house.run(5_000)
    expect(a.store.copy(id)?.owner).toBe(b.id)
  })

  test('one that started just now and cannot reach the third does not either', () => {
    const house = new House(3)
    const [a, b, c] = house.heirs as [Heir, Heir, Heir]
    const id = a.accept([b])
    b.accept([c])
    house.run(MINUTE)
    c.crash('off')
    b.restart()
    a.restart()
    house.run(30_000)
    expect(a.mayAct(id)).toBe(false)
    house.run(40_000)
    expect(a.mayAct(id)).toBe(true)
  })

  test('nodes that all start at once hear that nobody went back in time, and go on', () => {
    const house = new House(3)
    const [a, b, c] = house.heirs as [Heir, Heir, Heir]
    const ids = [a.accept([b]), b.accept([c]), c.accept([a])]
    house.run(MINUTE)
    for (const heir of house.heirs) heir.crash('off')
    for (const heir of house.heirs) heir.restart()
    house.run(15_000)
    expect([a, b, c].map((heir, index) => heir.mayAct(ids[index] as MessageId))).toEqual([
      true,
      true,
      true,
    ])
    expect([a, b, c].map((heir) => heir.count('queue.barred'))).toEqual([0, 0, 0])
  })

  test('copies for others are inert behind it, and its witness is silent', () => {
    const house = new House(3)
    const [a, b, c] = house.heirs as [Heir, Heir, Heir]
    const id = a.accept([b])
    house.run(MINUTE)
    house.remove(a)
    c.crash('off')
    b.restart()
    house.run(30_000)
    expect(b.succession.isPassed).toBe(false)
    expect(b.store.get(id)).toBeNull()
    house.run(40_000)
    expect(b.store.get(id)).not.toBeNull()
  })
})

describe('a disk that went back in time', () => {
  test('a peer knows a later start: nothing old moves before all have spoken', () => {
    const house = new House(3)
    const [a, b, c] = house.heirs as [Heir, Heir, Heir]
    house.run(10_000)
    // When the snapshot is taken nobody else has it yet.
    const early = a.accept([])
    const image = a.store.image()
    const { epoch } = a
    house.run(10_000)
    a.store.get(early)?.holders.set(c.id, 'kept')
    c.store.kept.set(early, a.store.get(early) as never)
    a.restart()
    house.run(3 * MINUTE)
    a.mark(early, 'done', [])
    c.store.fates.set(early, { id: early, owner: a.id, term: 1, states: ['done'] })
    c.store.kept.delete(early)
    a.crash('down')
    a.store.restore(image)
    a.epoch = epoch - 1
    house.cut(a, c)
    a.restart()
    house.run(30_000)
    expect(a.count('queue.barred', '"why":"rolledBack"')).toBe(1)
    expect(a.mayAct(early)).toBe(false)
    expect(a.succession.why(a.store.get(early) as never)).toContain('went back in time')
    house.heal()
    house.run(10_000)
    expect(a.stateOf(early)).toBe('done')
    expect(b.adopted).toEqual([])
  })

  for (const hasHolder of [true, false]) {
    const what = hasHolder
      ? 'what a holder had once and has no more was final, and does not go out again'
      : 'what nobody else ever had is in doubt: it waits, and is counted when it goes'
    test(what, () => {
      const house = new House(2)
      const [a, b] = house.heirs as [Heir, Heir]
      house.run(10_000)
      const id = a.accept(hasHolder ? [b] : [])
      const image = a.store.image()
      house.run(10_000)
      a.restart()
      house.run(10_000)
      a.mark(id, 'done', [])
      b.store.kept.delete(id)
      a.crash('down')
      a.store.restore(image)
      a.epoch -= 2
      a.restart()
      house.run(10_000)
      if (hasHolder) {
        expect([a.store.get(id), a.stateOf(id)]).toEqual([null, 'dropped'])
        return
      }
      const [recipient] = a.store.get(id)?.recipients ?? []
      expect(recipient).toMatchObject({ state: 'inDoubt', doubtful: true })
      expect((recipient?.nextTryMs ?? 0) - a.wallMs()).toBeGreaterThan(IN_DOUBT_MS - 11_000)
    })
  }

  describe('no start came between, and a holder was told that it is over', () => {
    function wentBack(isMadeAgain: boolean): { readonly a: Heir; readonly ids: MessageId[] } {
      const house = new House(3)
      const [a, b, c] = house.heirs as [Heir, Heir, Heir]
      house.run(10_000)
      const [over, open] = [a.accept([b, c]), a.accept([b])]
      if (isMadeAgain) Object.assign(a.store.get(over) ?? {}, { heldMoved: true })
      const image = a.store.image()
      a.mark(over, 'done', [])
      // A DISCARD says no more than that; the other holder has not heard it yet.
      b.store.kept.delete(over)
      b.store.fates.set(over, { id: over, owner: a.id, term: 1, states: ['queued'] })
      a.crash('down')
      a.store.restore(image)
      a.restart()
      house.run(10_000)
      return { a, ids: [over, open] }
    }

    test('it does not go out again, and the rest is counted when it does', () => {
      const { a, ids } = wentBack(false)
      const [over, open] = ids as [MessageId, MessageId]
      expect(a.stateOf(over)).toBe('dropped')
      expect(a.store.get(open)?.recipients).toMatchObject([{ state: 'queued', doubtful: true }])
      expect([a.mayAct(open), a.count('node.rolledBack')]).toEqual([true, 1])
    })

    test('what comes to life again under its id, a release, is not taken for that', () => {
      const { a, ids } = wentBack(true)
      expect(a.stateOf(ids[0] as MessageId)).toBe('queued')
      expect(a.count('node.rolledBack')).toBe(0)
    })
  })

  test('a holder that lost its copy proves nothing while this disk is whole', () => {
    const house = new House(2)
    const [a, b] = house.heirs as [Heir, Heir]
    const id = a.accept([b])
    house.run(10_000)
    b.store.kept.clear()
    a.restart()
    house.run(10_000)
    expect(a.stateOf(id)).toBe('queued')
    expect(a.mayAct(id)).toBe(true)
  })
})
