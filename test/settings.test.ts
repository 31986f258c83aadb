/** What an operator sets, on one node and on several that change it at the same time. */
import { describe, expect, test } from 'bun:test'
import fc from 'fast-check'
import { RefusalError } from '../src/base/errors.ts'
import { canonicalNetwork, NetworkIndex } from '../src/config/networks.ts'
import { changedDomains, type Domain } from '../src/config/snapshot.ts'
import { carry, meet } from './exchange.ts'
import { type Room, refusal, rooms } from './rooms.ts'

const { apart, reopened, room } = rooms()

const domainOf = (name: string, part: Partial<Domain> = {}): Domain => ({
  name,
  nextHops: [],
  recipients: null,
  hold: null,
  reject: null,
  enforce: null,
  ...part,
})

/** A value as a peer of a later version, or one with a fault, may have written it. */
function forge(from: Room, kind: string, key: string, value: string): void {
  from.rows.write(kind, key, value, 'peer')
}

const lastId = ({ changes }: Room): string => changes.history(1)[0]?.id ?? ''

describe('a change', () => {
  test('is in force and in the history when the call returns, and after a restart', () => {
    const first = room()
    let told = 0
    first.live.onChange(() => {
      told += 1
    })
    first.changes.setSetting('ruiz', 'policy.hold', '6')
    first.clock.advance(10)
    first.changes.setSetting('cli', 'policy.hold', 7)
    expect(told).toBe(2)
    const second = reopened(first)
    expect(second.live.current.settings['policy.hold']).toBe(7)
    expect(second.changes.history(10)).toEqual([
      expect.objectContaining({
        key: 'setting/policy.hold',
        author: 'cli',
        before: '6',
        after: '7',
      }),
      expect.objectContaining({
        key: 'setting/policy.hold',
        author: 'ruiz',
        before: null,
        after: '6',
      }),
    ])
    expect(second.changes.stamp('setting/policy.hold')).toEqual({
      author: 'cli',
      atMs: second.clock.wallMs(),
    })
  })

  test('to the value that stands is none', () => {
    const { changes } = room()
    changes.setSetting('ruiz', 'policy.hold', 6)
    changes.setSetting('ruiz', 'policy.hold', '6.0')
    expect(changes.history(10)).toHaveLength(1)
  })

  test('that is refused changes nothing', () => {
    const { changes, live } = room()
    const before = live.current
    expect(refusal(() => changes.setSetting('cli', 'policy.hold', 15)).field).toBe('policy.hold')
    expect(refusal(() => changes.setSetting('cli', 'mail.size', 'x')).field).toBe('mail.size')
    expect(refusal(() => changes.removeDomain('cli', 'a.example')).code).toBe('notFound')
    expect(live.current).toBe(before)
    expect(changes.history(10)).toEqual([])
  })

  test('of a threshold must fit every domain that gives only one of the two', () => {
    const { changes } = room()
    changes.putDomain('cli', {
      name: 'a.example',
      nextHops: [],
      recipients: null,
      hold: null,
      reject: 10,
    })
    const error = refusal(() => changes.setSetting('cli', 'policy.hold', 12))
    expect(error.field).toBe('policy.hold')
    expect(error.advice).toContain('a.example')
    changes.setSetting('cli', 'policy.hold', 9)
  })

  test('is undone by its id, and the undoing can be undone', () => {
    const here = room()
    const { changes, live } = here
    changes.setSetting('ruiz', 'policy.hold', 6)
    expect(changes.undo('nagy', lastId(here))).toBe('setting/policy.hold')
    expect(live.current.settings['policy.hold']).toBe(8)
    expect(changes.stamp('setting/policy.hold')).toBeNull()
    changes.undo('nagy', lastId(here))
    expect(live.current.settings['policy.hold']).toBe(6)
    expect(changes.history(10)).toHaveLength(3)
  })

  test('of a domain is undone whole, with all its recipients', () => {
    const here = room()
    const { changes, live } = here
    const recipients = Array.from({ length: 5_000 }, (_, index) => `r${10_000 + index}`)
    const domain = domainOf('a.example', { recipients, hold: 3 })
    changes.putDomain('cli', domain)
    changes.removeDomain('cli', 'a.example')
    expect(live.current.domains.size).toBe(0)
    const [removal] = changes.history(1)
    expect(JSON.parse(removal?.before ?? '')).toEqual({
      nextHops: [],
      recipients: 5_000,
      hold: 3,
      reject: null,
    })
    changes.undo('cli', removal?.id ?? '')
    expect(live.current.domains.get('a.example')).toEqual(domain)
  })

  test('of a group of fields is undone, and leaves the others as they are by now', () => {
    const here = room()
    const { changes, live } = here
    changes.putDomain('cli', domainOf('a.example', { recipients: ['ann', 'bob'] }))
    changes.putDomain('cli', { name: 'a.example', recipients: ['bob', 'zoe'] })
    const id = lastId(here)
    expect(changes.change(id)).toMatchObject({
      key: 'domain/a.example/recipients',
      before: '{"removed":["ann"]}',
      after: '{"added":["zoe"]}',
    })
    changes.putDomain('cli', { name: 'a.example', hold: 5 })
    changes.undo('cli', id)
    expect(live.current.domains.get('a.example')).toEqual(
      domainOf('a.example', { recipients: ['ann', 'bob'], hold: 5 }),
    )
    changes.removeDomain('cli', 'a.example')
    expect(refusal(() => changes.undo('cli', lastIdOf(here, 'policy'))).message).toContain(
      'domain/a.example was changed again',
    )
  })

  test('that is too long for the history keeps its beginning and is not undone', () => {
    const here = room()
    const recipients = Array.from({ length: 20_000 }, (_, index) => `r${index}`)
    here.changes.putDomain('cli', domainOf('a.example'))
    here.changes.putDomain('cli', { name: 'a.example', recipients })
    expect(here.changes.change(lastId(here))?.after?.length).toBeLessThan(2_100)
    expect(refusal(() => here.changes.undo('cli', lastId(here))).message).toContain('too long')
    const more = Array.from({ length: 100_000 }, (_, index) => `r${index}`)
    expect(
      refusal(() => here.changes.putDomain('cli', { name: 'a.example', recipients: more })),
    ).toMatchObject({ field: 'recipients' })
    expect(here.live.current.domains.get('a.example')?.recipients).toHaveLength(20_000)
  })

  test('that was followed by another of the same key is not undone', () => {
    const here = room()
    const { changes, live } = here
    changes.setSetting('ruiz', 'policy.hold', 6)
    const first = lastId(here)
    changes.setSetting('nagy', 'policy.hold', 7)
    const error = refusal(() => changes.undo('ruiz', first))
    expect(error.code).toBe('conflict')
    expect(error.message).toContain('nagy')
    expect(live.current.settings['policy.hold']).toBe(7)
    expect(refusal(() => changes.undo('ruiz', '999')).code).toBe('notFound')
  })

  test('of an unknown key, or an unknown field of a group, is left alone: a later version knows it', () => {
    const first = room()
    let told = 0
    first.live.onChange(() => {
      told += 1
    })
    forge(first, 'setting', 'later.thing', '{"deep":1}')
    forge(first, 'domain', 'a.example/later', '1')
    expect(told).toBe(0)
    first.changes.putDomain('ruiz', domainOf('a.example', { hold: 3 }))
    forge(first, 'domain', 'a.example/policy', '{"hold":3,"reject":null,"shade":1}')
    expect(first.changes.configTrouble()).toBeNull()
    first.changes.putDomain('ruiz', { name: 'a.example', hold: 4 })
    expect(first.rows.cell('domain', 'a.example/policy')?.heads[0]?.value).toBe(
      '{"hold":4,"reject":null,"shade":1}',
    )
    const second = reopened(first)
    expect(second.changes.configTrouble()).toBeNull()
    expect(second.rows.cell('setting', 'later.thing')?.heads[0]?.value).toBe('{"deep":1}')
  })

  test('is refused whole while the clock of the node is not to be trusted, and says so (K12)', () => {
    const here = room()
    here.changes.putDomain('ruiz', domainOf('a.example'))
    here.readOnly = 'The clock of this node is 90 s behind that of its peers.'
    const { changes, lists, tokens } = here
    for (const act of [
      () => changes.setSetting('ruiz', 'policy.hold', 6),
      () => changes.putDomain('ruiz', { name: 'a.example', hold: 3 }),
      () => changes.removeDomain('ruiz', 'a.example'),
      () => changes.undo('ruiz', lastId(here)),
      () => lists.add('ruiz', { list: 'block', kind: 'ip', value: '192.0.2.1', note: '' }),
      () => tokens.add('ruiz', { name: 'x', role: 'viewer', days: null }),
    ]) {
      expect(refusal(act)).toMatchObject({ code: 'unavailable', message: here.readOnly })
    }
    expect(changes.history(10)).toHaveLength(1)
  })
})

function lastIdOf({ changes }: Room, part: string): string {
  return changes.history(100).find(({ key }) => key.endsWith(part))?.id ?? ''
}

describe('two nodes that change at the same time', () => {
  test('keep both of two different settings, and of two different fields of a domain', () => {
    const [a, b] = apart()
    a.changes.putDomain('ruiz', domainOf('a.example'))
    meet(a, b)
    a.changes.setSetting('ruiz', 'policy.hold', 6)
    b.changes.setSetting('nagy', 'mail.size', 100_000)
    a.changes.putDomain('ruiz', { name: 'a.example', hold: 3 })
    b.changes.putDomain('nagy', { name: 'a.example', recipients: ['ann'] })
    meet(a, b)
    for (const { live, conflicts, changes } of [a, b]) {
      expect(live.current.settings).toMatchObject({ 'policy.hold': 6, 'mail.size': 100_000 })
      expect(live.current.domains.get('a.example')).toEqual(
        domainOf('a.example', { hold: 3, recipients: ['ann'] }),
      )
      expect(conflicts.list()).toEqual([])
      expect(changes.configTrouble()).toBeNull()
    }
    expect(a.rows.digest()).toEqual(b.rows.digest())
  })

  test('learn which domains are not as they were, and only those', () => {
    const [a, b] = apart()
    const told: string[][] = []
    b.live.onChange((next, before) => told.push([...changedDomains(next, before)].sort()))
    for (const name of ['a.example', 'b.example', 'c.example']) {
      a.changes.putDomain('ruiz', domainOf(name, { hold: 3 }))
    }
    carry(a, b)
    a.changes.putDomain('ruiz', { name: 'b.example', nextHops: [], hold: 4 })
    a.changes.removeDomain('ruiz', 'c.example')
    carry(a, b)
    a.changes.setSetting('ruiz', 'mail.hops', 40)
    carry(a, b)
    a.changes.undo('ruiz', lastIdOf(a, 'c.example'))
    carry(a, b)
    expect(told).toEqual([
      ['a.example', 'b.example', 'c.example'],
      ['b.example'],
      [],
      ['c.example'],
    ])
  })

  test('have one history, newest first, with the same ids', () => {
    const [a, b] = apart()
    for (let count = 0; count < 5; count++) {
      a.changes.setSetting('ruiz', 'policy.hold', 1 + count)
      a.clock.advance(7)
      b.changes.setSetting('nagy', 'policy.reject', 20 + count)
      a.clock.advance(3)
    }
    meet(a, b)
    const history = a.changes.history(100)
    expect(b.changes.history(100)).toEqual(history)
    expect(history.map(({ author }) => author)).toEqual(Array(5).fill(['nagy', 'ruiz']).flat())
    expect(reopened(b).changes.history(100)).toEqual(history)
  })

  test('and the same setting have one winner and one listed conflict everywhere, until one is kept (K15)', () => {
    const [a, b] = apart()
    const c = room(undefined, a.clock)
    a.changes.setSetting('ruiz', 'policy.hold', 6)
    a.clock.advance(5)
    b.changes.setSetting('nagy', 'policy.hold', 7)
    meet(a, b, c)
    const shown = a.conflicts.list()
    expect(shown).toEqual([
      {
        key: 'setting/policy.hold',
        sides: [
          expect.objectContaining({ value: '7', by: 'nagy', node: 'mx1', atMs: a.clock.wallMs() }),
          expect.objectContaining({ value: '6', by: 'ruiz', atMs: a.clock.wallMs() - 5 }),
        ],
      },
    ])
    for (const node of [a, b, c]) {
      expect(node.live.current.settings['policy.hold']).toBe(7)
      expect(node.conflicts.list()).toEqual(shown)
    }
    expect(refusal(() => c.changes.undo('ruiz', lastId(c))).message).toContain('two values')
    c.conflicts.keep('h.berg', 'setting/policy.hold', shown[0]?.sides[1]?.id ?? '')
    meet(a, b, c)
    for (const node of [a, b, reopened(c)]) {
      expect(node.live.current.settings['policy.hold']).toBe(6)
      expect(node.conflicts.list()).toEqual([])
    }
    expect(a.changes.history(1)).toEqual([
      expect.objectContaining({ author: 'h.berg', before: '7', after: '6' }),
    ])
    expect(refusal(() => a.conflicts.keep('x', 'setting/policy.hold', '')).code).toBe('notFound')
  })

  test('do not let a person keep a value when the values are others by now', () => {
    const [a, b] = apart()
    const c = room(undefined, a.clock)
    a.changes.setSetting('ruiz', 'policy.hold', 6)
    b.changes.setSetting('nagy', 'policy.hold', 7)
    c.changes.setSetting('h.berg', 'policy.hold', 5)
    meet(a, b)
    const [shown] = a.conflicts.list()
    carry(c, a)
    for (const { id } of shown?.sides ?? []) {
      expect(refusal(() => a.conflicts.keep('ruiz', 'setting/policy.hold', id)).code).toBe(
        'conflict',
      )
    }
    expect(a.conflicts.list()[0]?.sides).toHaveLength(3)
  })

  test('and the same value have no conflict', () => {
    const [a, b] = apart()
    a.changes.setSetting('ruiz', 'policy.hold', 6)
    b.changes.setSetting('nagy', 'policy.hold', '6.0')
    meet(a, b)
    expect(a.conflicts.list()).toEqual([])
  })

  test('keep a domain that one removed and the other edited, whole, and show it (K15)', () => {
    const [a, b] = apart()
    const domain = domainOf('a.example', { recipients: ['ann'], hold: 3 })
    a.changes.putDomain('ruiz', domain)
    meet(a, b)
    b.changes.putDomain('nagy', { name: 'a.example', hold: 4 })
    a.clock.advance(5)
    a.changes.removeDomain('ruiz', 'a.example')
    expect(a.live.current.domains.size).toBe(0)
    meet(a, b)
    for (const { live, conflicts } of [a, b]) {
      expect(live.current.domains.get('a.example')).toEqual({ ...domain, hold: 4 })
      expect(conflicts.list()).toMatchObject([
        { key: 'domain/a.example', sides: [{ by: 'nagy' }, { by: 'ruiz', value: null }] },
      ])
    }
    const [shown] = b.conflicts.list()
    b.conflicts.keep('nagy', 'domain/a.example', shown?.sides[1]?.id ?? '')
    meet(a, b)
    for (const { live, conflicts } of [a, b]) {
      expect(live.current.domains.size).toBe(0)
      expect(conflicts.list()).toEqual([])
    }
  })

  test('add a block that the other removes, and lose an allowance that the other removes', () => {
    const [a, b] = apart()
    const block = { list: 'block', kind: 'sender', value: 'X@Bad.example', note: '' }
    const allow = { list: 'allow', kind: 'ip', value: '10.1.2.3/8', note: '' }
    for (const entry of [block, allow]) a.lists.add('ruiz', entry)
    meet(a, b)
    for (const entry of [block, allow]) {
      a.lists.remove('ruiz', entry.list, entry.kind, entry.value)
      b.lists.add('nagy', { ...entry, note: 'again' })
    }
    meet(a, b)
    for (const { live, lists, conflicts } of [a, b]) {
      expect([...live.current.lists.blockedSenders]).toEqual(['x@bad.example'])
      expect(live.current.lists.allowedClients.find('10.9.9.9')).toBeNull()
      expect(lists.entries('allow')).toEqual([])
      expect(lists.entries('block')).toMatchObject([{ value: 'x@bad.example', note: 'again' }])
      expect(conflicts.list().map(({ key }) => key)).toEqual([
        'list/allow/ip/10.0.0.0/8',
        'list/block/sender/x@bad.example',
      ])
    }
  })

  test('agree whatever they did and whoever met whom first', () => {
    const act = fc.record({
      who: fc.nat(2),
      what: fc.constantFrom('set', 'put', 'edit', 'remove', 'block', 'unblock', 'meet', 'keep'),
      value: fc.integer({ min: 1, max: 4 }),
    })
    fc.assert(
      fc.property(fc.array(act, { maxLength: 25 }), (acts) => {
        const first = room()
        const nodes = [first, room(undefined, first.clock), room(undefined, first.clock)]
        for (const { who, what, value } of acts) {
          first.clock.advance(value % 2)
          attempt(nodes, who, what, value)
        }
        meet(...nodes)
        for (const other of nodes.slice(1)) {
          expect(other.rows.digest()).toEqual(first.rows.digest())
          expect(other.conflicts.list()).toEqual(first.conflicts.list())
          expect(other.changes.history(100)).toEqual(first.changes.history(100))
          if (first.changes.configTrouble() === null) {
            expect(other.live.current).toEqual(first.live.current)
          }
        }
      }),
      { numRuns: 15 },
    )
  }, 60_000)
})

function attempt(nodes: readonly Room[], who: number, what: string, value: number): void {
  const here = nodes[who] as Room
  const { changes, lists, conflicts } = here
  const entry = { list: 'block', kind: 'ip', value: `192.0.2.${value}`, note: '' }
  const name = `d${value % 2}.example`
  const acts: Readonly<Record<string, () => unknown>> = {
    set: () => changes.setSetting('ruiz', value % 2 ? 'policy.hold' : 'policy.reject', value * 4),
    put: () => changes.putDomain('ruiz', domainOf(name, { hold: value })),
    edit: () => changes.putDomain('ruiz', { name, recipients: [`r${value}`] }),
    remove: () => changes.removeDomain('ruiz', name),
    block: () => lists.add('ruiz', entry),
    unblock: () => lists.remove('ruiz', 'block', 'ip', entry.value),
    meet: () => meet(here, nodes[value % 3] as Room),
    keep: () => {
      const [conflict] = conflicts.list()
      const side = conflict?.sides[value % 2]
      if (conflict !== undefined && side !== undefined)
        conflicts.keep('ruiz', conflict.key, side.id)
    },
  }
  try {
    acts[what]?.()
  } catch (error) {
    if (!(error instanceof RefusalError)) throw error
  }
}

describe('a merged configuration that does not hold', () => {
  /** Each side is right, and together they are not: hold 12, reject 10. */
  function torn(): readonly [Room, Room] {
    const [a, b] = apart()
    a.changes.setSetting('ruiz', 'mail.size', 100_000)
    a.changes.putDomain('ruiz', domainOf('plain.example'))
    meet(a, b)
    a.changes.setSetting('ruiz', 'policy.hold', 12)
    b.changes.setSetting('nagy', 'policy.reject', 10)
    meet(a, b)
    return [a, b]
  }

  test('is not put in force: the last that held is, as a whole, also after a restart', () => {
    const [a, b] = torn()
    expect(a.live.current.settings).toMatchObject({ 'policy.hold': 12, 'policy.reject': 15 })
    expect(b.live.current.settings).toMatchObject({ 'policy.hold': 8, 'policy.reject': 10 })
    for (const node of [a, b]) {
      const before = node.live.current.settings
      const again = reopened(node)
      expect(again.live.current.settings).toEqual(before)
      expect(again.changes.configTrouble()).toEqual({
        message:
          'The newest settings do not hold: Hold must be below reject, which is 10. The last ones that hold are in force.',
        advice: 'Enter less than 10, or raise reject first.',
      })
      expect(again.observer.count('config_refused_total')).toBe(1)
    }
  })

  test('keeps out what came with it and after it, until a change mends it, wherever that is made', () => {
    const [a, b] = torn()
    // From a peer that did not know of the trouble.
    forge(b, 'setting', 'mail.hops', '40')
    meet(a, b)
    expect(a.live.current.settings['mail.hops']).toBe(50)
    const error = refusal(() => a.changes.setSetting('ruiz', 'mail.recipients', 500))
    expect(error.code).toBe('conflict')
    expect(error.message).toContain('Hold must be below reject')
    expect(refusal(() => a.changes.setSetting('ruiz', 'policy.reject', 11)).field).toBe(
      'policy.reject',
    )
    b.changes.setSetting('nagy', 'policy.reject', 20)
    meet(a, b)
    for (const { live, changes } of [a, b]) {
      expect(changes.configTrouble()).toBeNull()
      expect(live.current.settings).toMatchObject({
        'policy.hold': 12,
        'policy.reject': 20,
        'mail.hops': 40,
        'mail.size': 100_000,
      })
    }
    expect(reopened(a).live.current.settings['policy.reject']).toBe(20)
  })

  test('of which several things do not hold is mended one by one', () => {
    const [a, b] = torn()
    forge(a, 'setting', 'mail.size', '"huge"')
    forge(a, 'domain', 'a.example/recipients', '{')
    forge(a, 'domain', 'a.example/policy', '{"hold":3,"reject":null}')
    forge(a, 'domain', 'a.example', '{}')
    const { live, changes } = a
    expect(changes.configTrouble()?.message).toContain('There are 2 others.')
    changes.setSetting('ruiz', 'mail.size', 200_000)
    changes.putDomain('ruiz', { name: 'a.example', recipients: ['ann'] })
    expect(live.current.domains.has('a.example')).toBe(false)
    changes.setSetting('ruiz', 'policy.hold', 9)
    expect(changes.configTrouble()).toBeNull()
    // Also the field that came while an older configuration was in force.
    expect(live.current.domains.get('a.example')).toMatchObject({ recipients: ['ann'], hold: 3 })
    expect(live.current.settings).toMatchObject({ 'mail.size': 200_000, 'policy.hold': 9 })
    meet(a, b)
    expect(b.live.current).toEqual(live.current)
  })

  test('because of the thresholds of a domain names it, and leaves no other trouble', () => {
    const [a, b] = apart()
    a.changes.putDomain('ruiz', domainOf('a.example', { reject: 10 }))
    a.changes.putDomain('ruiz', domainOf('b.example'))
    meet(a, b)
    a.changes.putDomain('ruiz', { name: 'a.example', reject: 9 })
    b.changes.setSetting('nagy', 'policy.hold', 9.5)
    meet(a, b)
    expect(a.changes.configTrouble()?.message).toContain('for a.example')
    expect(a.changes.configTrouble()?.message).not.toContain('other')
    a.changes.removeDomain('ruiz', 'a.example')
    expect(a.changes.configTrouble()).toBeNull()
    expect(a.live.current.settings['policy.hold']).toBe(9.5)
  })

  test('and no good one either: what this version can use is used, and the rest is said', () => {
    const first = room()
    first.changes.setSetting('ruiz', 'policy.hold', 6)
    first.changes.putDomain('ruiz', domainOf('a.example', { hold: 3 }))
    first.changes.putDomain('ruiz', domainOf('b.example'))
    forge(first, 'setting', 'policy.hold', '400')
    const { sqlite } = first.databases.state
    sqlite.run("UPDATE good_cell SET value = '400' WHERE cell = 'setting/policy.hold'")
    sqlite.run("UPDATE good_cell SET value = '[7]' WHERE cell = 'domain/b.example/nextHops'")
    const second = reopened(first)
    const { settings, domains } = second.live.current
    expect(settings['policy.hold']).toBe(8)
    expect([...domains.values()]).toEqual([domainOf('a.example', { hold: 3 })])
    expect(second.observer.count('config_ignored_total')).toBe(2)
  })

  test('leaves a node that joins then with all of it that holds, also after a restart', () => {
    const [a] = torn()
    a.rows.write('domain', 'a.example', '{}', 'peer')
    const c = room(undefined, a.clock)
    const { rows } = a.rows.read(0, new Map(), 1e9)
    // In an order in which the trouble comes before most of the rest.
    for (const row of rows.toReversed()) {
      c.rows.apply({
        peer: a.node.id,
        rows: [JSON.parse(JSON.stringify(row))],
        as: { kind: 'repair' },
      })
    }
    expect(c.changes.configTrouble()).not.toBeNull()
    c.changes.adopt()
    const again = reopened(c)
    for (const node of [c, again]) {
      expect([...node.live.current.domains.keys()].sort()).toEqual(['a.example', 'plain.example'])
      expect(node.live.current.settings).toMatchObject({
        'policy.hold': 8,
        'policy.reject': 15,
        'mail.size': 100_000,
      })
      expect(node.changes.configTrouble()).not.toBeNull()
    }
    again.changes.setSetting('ruiz', 'policy.reject', 30)
    expect(reopened(again).live.current.settings).toMatchObject({
      'policy.hold': 12,
      'policy.reject': 30,
    })
  })

  test('is in force all the same where the disk did not take the copy of the last good one', () => {
    const here = room()
    here.databases.state.sqlite.run('ALTER TABLE good_cell RENAME TO gone')
    here.changes.setSetting('ruiz', 'policy.hold', 6)
    expect(here.live.current.settings['policy.hold']).toBe(6)
    here.databases.state.sqlite.run('ALTER TABLE gone RENAME TO good_cell')
    here.changes.setSetting('ruiz', 'mail.hops', 40)
    const copied = here.databases.state.sqlite.query('SELECT cell FROM good_cell').all()
    expect(copied).toHaveLength(2)
  })
})

describe('a stale form', () => {
  test('of a setting is refused with the value that stands, and changes nothing', () => {
    const [a, b] = apart()
    const seen = a.changes.seenOf('setting/policy.hold')
    b.changes.setSetting('nagy', 'policy.hold', 7)
    meet(a, b)
    const error = refusal(() => a.changes.setSetting('ruiz', 'policy.hold', 6, seen))
    expect(error).toMatchObject({ code: 'conflict', field: 'policy.hold' })
    expect(error.message).toMatch(/^policy\.hold was set to 7 by nagy at .*Z, after you were/)
    expect(a.conflicts.list()).toEqual([])
    a.changes.setSetting('ruiz', 'policy.hold', 6, a.changes.seenOf('setting/policy.hold'))
    expect(a.live.current.settings['policy.hold']).toBe(6)
    expect(refusal(() => a.changes.setSetting('ruiz', 'policy.hold', 5, 'x')).field).toBe('seen')
  })

  test('of a domain is refused for a field that changed, and passes for another one', () => {
    const { changes } = room()
    changes.putDomain('ruiz', domainOf('a.example'))
    const seen = changes.seenOf('domain/a.example')
    changes.putDomain('nagy', { name: 'a.example', hold: 3 })
    expect(
      refusal(() => changes.putDomain('ruiz', { name: 'a.example', hold: 4 }, seen)).code,
    ).toBe('conflict')
    changes.putDomain('ruiz', { name: 'a.example', recipients: ['ann'] }, seen)
    changes.removeDomain('nagy', 'a.example')
    expect(
      refusal(() => changes.putDomain('ruiz', { name: 'a.example', recipients: [] }, seen)).message,
    ).toContain('removed by nagy')
  })
})

describe('the lists', () => {
  test('take an entry in any way it is written, once, and give it back', () => {
    const { lists, live, clock } = room()
    lists.add('ruiz', {
      list: 'block',
      kind: 'ip',
      value: ' 192.0.2.77/24 ',
      note: ' from\na\tbot ',
    })
    lists.add('nagy', { list: 'block', kind: 'ip', value: '192.0.2.0/24', note: 'from a bot' })
    expect(lists.entries('block')).toEqual([
      {
        list: 'block',
        kind: 'ip',
        value: '192.0.2.0/24',
        note: 'from a bot',
        by: 'ruiz',
        addedMs: clock.wallMs(),
      },
    ])
    expect(live.current.lists.blockedClients.find('::ffff:192.0.2.1')).toBe('192.0.2.0/24')
    lists.remove('ruiz', 'block', 'ip', '::ffff:192.0.2.9/120')
    expect(lists.entries('block')).toEqual([])
    expect(refusal(() => lists.remove('ruiz', 'block', 'ip', '192.0.2.0/24')).code).toBe('notFound')
  })

  test('are changed back from the history', () => {
    const here = room()
    here.lists.add('ruiz', { list: 'block', kind: 'sender', value: '@Bücher.example', note: 'n' })
    here.lists.remove('ruiz', 'block', 'sender', '@xn--bcher-kva.example')
    here.changes.undo('ruiz', lastId(here))
    expect(here.lists.entries('block')).toMatchObject([
      { value: '@xn--bcher-kva.example', note: 'n' },
    ])
    here.changes.undo('ruiz', lastId(here))
    expect(here.live.current.lists.blockedSenders.size).toBe(0)
  })

  test('let a sender in by another part than they keep one out', () => {
    const here = room()
    here.lists.add('ruiz', { list: 'allow', kind: 'sender', value: '@Good.example', note: '' })
    here.lists.add('ruiz', { list: 'allow', kind: 'sender', value: 'a@b.example', note: 'n' })
    const { allowedSenders, blockedSenders } = here.live.current.lists
    expect([...allowedSenders].sort()).toEqual(['@good.example', 'a@b.example'])
    expect(blockedSenders.size).toBe(0)
    here.lists.remove('ruiz', 'allow', 'sender', '@good.example')
    expect([...here.live.current.lists.allowedSenders]).toEqual(['a@b.example'])
    expect(here.lists.entries('allow')).toMatchObject([{ kind: 'sender', value: 'a@b.example' }])
  })

  test.each([
    ['deny', 'ip', '192.0.2.1', 'list'],
    ['block', 'name', 'x', 'kind'],
    ['allow', 'sender', 'b.example', 'value'],
    ['block', 'ip', '192.0.2', 'value'],
    ['block', 'ip', '192.0.2.1/33', 'value'],
    ['block', 'ip', '0.0.0.0/0', 'value'],
    ['allow', 'ip', 'fe80::1%eth0', 'value'],
    ['block', 'sender', 'b.example', 'value'],
    ['block', 'sender', '@', 'value'],
    ['block', 'sender', 'a b@c.example', 'value'],
  ])('refuse %s %s %s by the field %s', (list, kind, value, field) => {
    const { lists } = room()
    const error = refusal(() => lists.add('ruiz', { list, kind, value, note: '' }))
    expect(error.field).toBe(field)
    expect(error.advice).toMatch(/\.$/)
  })

  test('hold 10,000 entries and refuse one more', () => {
    const here = room()
    here.rows.transact(() => {
      for (let count = 0; count < 10_000; count++) {
        forge(here, 'list', `block/ip/10.0.${count >> 8}.${count & 255}`, '{}')
      }
    })
    expect(here.live.current.lists.blockedClients.find('10.0.39.15')).toBe('10.0.39.15')
    expect(
      refusal(() =>
        here.lists.add('ruiz', { list: 'allow', kind: 'ip', value: '192.0.2.1', note: '' }),
      ).message,
    ).toContain('10000')
  })
})

describe('a network', () => {
  test.each([
    ['10.1.2.3/8', '10.0.0.0/8'],
    ['192.0.2.7/32', '192.0.2.7'],
    ['2001:DB8:0:0::1', '2001:db8::1'],
    ['2001:db8:1:2:3:4:5:6/33', '2001:db8::/33'],
    ['::', '::'],
    ['1::', '1::'],
    ['0:0:1:0:0:0:1:0', '0:0:1::1:0'],
    ['1:0:2:3:4:5:6:7', '1:0:2:3:4:5:6:7'],
    ['::ffff:192.0.2.1', '192.0.2.1'],
    ['::ffff:c000:201', '192.0.2.1'],
    ['::ffff:10.1.1.1/104', '10.0.0.0/8'],
    ['64:ff9b::192.0.2.1', '64:ff9b::c000:201'],
  ])('%s is %s', (text, canonical) => {
    expect(canonicalNetwork(text)).toBe(canonical)
    expect(canonicalNetwork(canonical)).toBe(canonical)
  })

  test('is found by every address in it, and by no other: as masks of whole numbers say', () => {
    const word = fc.integer({ min: 0, max: 0xffff_ffff })
    const text = (ip: number) => [24, 16, 8, 0].map((shift) => (ip >>> shift) & 255).join('.')
    fc.assert(
      fc.property(
        word,
        fc.integer({ min: 0, max: 32 }),
        word,
        fc.boolean(),
        (base, bits, other, near) => {
          const mask = bits === 0 ? 0 : (-1 << (32 - bits)) >>> 0
          const ip = near ? ((base & mask) | (other & ~mask)) >>> 0 : other
          const holds = (ip & mask) >>> 0 === (base & mask) >>> 0
          const index = new NetworkIndex([`${text(base)}/${bits}`])
          expect(index.find(text(ip)) !== null).toBe(holds)
          expect(index.find(`::ffff:${text(ip)}`) !== null).toBe(holds)
        },
      ),
    )
  })

  test('that is the narrowest of several is named', () => {
    const index = new NetworkIndex(['10.0.0.0/8', '10.1.0.0/16', '2001:db8::/32'])
    expect(index.find('10.1.2.3')).toBe('10.1.0.0/16')
    expect(index.find('10.2.2.3')).toBe('10.0.0.0/8')
    expect(index.find('2001:db8:ffff::1')).toBe('2001:db8::/32')
    expect(index.find('2001:db9::1')).toBeNull()
    expect(index.find('no address')).toBeNull()
  })
})
