/** Keys with which mail of our domains is signed: when they sign, what tells that their record is gone, how they go. */
import { afterEach, describe, expect, test } from 'bun:test'
import { createPrivateKey, createPublicKey } from 'node:crypto'
import fc from 'fast-check'
import type { Author, SigningKeyRow } from '../src/admin/contract.ts'
import { domainsPart } from '../src/admin/domains.ts'
import { signingPart } from '../src/admin/signing.ts'
import { lostKeysAlert } from '../src/admin/signing-alert.ts'
import { RefusalError } from '../src/base/errors.ts'
import type { DnsAnswer } from '../src/base/names.ts'
import { ClusterSecrets } from '../src/cluster/secrets.ts'
import { Cast } from './cast.ts'
import { meet } from './exchange.ts'
import { refused as refusal, rooms } from './rooms.ts'

const ADMIN: Author = { name: 'ruiz', role: 'admin' }
const VIEWER: Author = { name: 'nagy', role: 'viewer' }
const KEY = { domain: 'example.com', selector: 's1', algorithm: 'ed25519' }

const { room: opened, ended } = rooms()
/** Answers of the name servers by name. */
const dns = new Map<string, DnsAnswer>()
afterEach(() => dns.clear())

/** The part of a node that is about keys. */
function house(cast = new Cast(), name = 'a') {
  const room = opened()
  const { rows, random } = room
  const secrets = new ClusterSecrets({ rows, random, roster: cast.roster(cast.add(name)) })
  const names = { query: async ({ name }: { readonly name: string }) => answerOf(name) }
  const { lostKeys, ...signing } = signingPart({ ...room, secrets, names })
  const probe = () => Promise.reject(new Error('nobody asks'))
  const admin = { ...signing, ...domainsPart({ ...room, ...signing, probe }) }
  return { room, secrets, admin, alert: () => lostKeysAlert(lostKeys()) }
}
type House = ReturnType<typeof house>

function answerOf(name: string): DnsAnswer {
  return dns.get(name) ?? { status: 'absent' }
}

/** A key of example.com that signs. */
async function active({ admin }: House, selector: string): Promise<SigningKeyRow> {
  const key = await admin.addSigningKey(ADMIN, { ...KEY, selector })
  dns.set(key.recordName, { status: 'found', records: [key.record] })
  return await admin.checkSigningKey(ADMIN, 'example.com', selector)
}

describe('a key', () => {
  test('a key signs only when the DNS has its record, and the refusal says what to publish', async () => {
    const { admin, room } = house()
    const made = await admin.addSigningKey(ADMIN, KEY)
    expect(made).toMatchObject({
      state: 'waiting',
      recordName: 's1._domainkey.example.com',
      isHere: true,
    })
    const states = () => room.live.current.signing.map(({ state }) => state)
    const wrong: readonly (readonly [DnsAnswer, string])[] = [
      [{ status: 'absent' }, 'has no TXT record yet'],
      [{ status: 'failed', cause: 'no answer' }, 'do not say'],
      [{ status: 'found', records: ['v=DKIM1; k=rsa; p=AAAA'] }, 'of another key'],
    ]
    for (const [answer, words] of wrong) {
      dns.set(made.recordName, answer)
      const error = await refusal(() => admin.checkSigningKey(ADMIN, 'example.com', 's1'))
      expect([error.code, error.message]).toEqual(['conflict', expect.stringContaining(words)])
      expect(error.advice).toContain(made.record)
      expect(await admin.checkKeys()).toMatchObject({ activated: [], missing: 0 })
      expect(states()).toEqual(['waiting'])
    }
    dns.set(made.recordName, { status: 'found', records: ['v=spf1 -all', made.record] })
    // A node that may set nothing now leaves it to the next look.
    room.readOnly = 'The clock is wrong.'
    expect(await admin.checkKeys()).toMatchObject({ activated: [] })
    room.readOnly = null
    expect(await admin.checkKeys()).toMatchObject({ activated: [made.recordName] })
    expect(states()).toEqual(['active'])
    expect(await admin.checkKeys()).toEqual({ activated: [], missing: 0, unknown: 0 })
  })

  test('one that signs and whose record is gone is told with the record to publish, until it is back', async () => {
    const here = house()
    const { admin, room } = here
    const key = await active(here, 's1')
    const gone: readonly (readonly [DnsAnswer, string])[] = [
      [{ status: 'absent' }, 'has no TXT record.'],
      [{ status: 'found', records: ['v=DKIM1; k=ed25519; p='] }, 'of another key'],
    ]
    for (const [answer, words] of gone) {
      // Nobody knows: neither gone nor back.
      dns.set(key.recordName, { status: 'failed', cause: 'no answer' })
      expect(await admin.checkKeys()).toEqual({ activated: [], missing: 0, unknown: 1 })
      expect(here.alert()).toBeNull()

      dns.set(key.recordName, answer)
      expect(await admin.checkKeys()).toEqual({ activated: [], missing: 1, unknown: 0 })
      const sinceMs = room.clock.wallMs()
      const alert = here.alert()
      expect([alert?.level, alert?.node]).toEqual(['bad', null])
      expect(alert?.meaning).toContain(words)
      expect(alert?.advice).toContain(`TXT ${key.recordName} with "${key.record}"`)
      expect(alert?.command).toBe('postern dkim check example.com s1')
      expect(admin.signingKeys()).toMatchObject([{ state: 'active', trouble: expect.anything() }])

      room.clock.advance(3_600_000)
      dns.set(key.recordName, { status: 'failed', cause: 'no answer' })
      await admin.checkKeys()
      dns.set(key.recordName, answer)
      await admin.checkKeys()
      expect(here.alert()?.sinceMs).toBe(sinceMs)

      dns.set(key.recordName, { status: 'found', records: [key.record] })
      expect(await admin.checkKeys()).toEqual({ activated: [], missing: 0, unknown: 0 })
      expect(here.alert()).toBeNull()
      expect(admin.signingKeys()).toMatchObject([{ state: 'active', trouble: null }])
    }
    expect(room.observer.count('signing_records_lost_total')).toBe(2)
  })

  test('the button of a key that signs finds its record gone, and back', async () => {
    const here = house()
    const key = await active(here, 's1')
    dns.set(key.recordName, { status: 'absent' })
    await refusal(() => here.admin.checkSigningKey(ADMIN, 'example.com', 's1'))
    expect(here.alert()).not.toBeNull()
    dns.set(key.recordName, { status: 'found', records: [key.record] })
    await here.admin.checkSigningKey(ADMIN, 'example.com', 's1')
    expect(here.alert()).toBeNull()
  })

  test('beside another one with its record it is less urgent; the other is not retired meanwhile', async () => {
    const here = house()
    const { admin } = here
    const [first] = [await active(here, 's1'), await active(here, 's2')]
    dns.set(first.recordName, { status: 'absent' })
    await admin.checkKeys()
    expect(here.alert()?.level).toBe('warn')
    const refused = await refusal(() => admin.retireSigningKey(ADMIN, 'example.com', 's2'))
    expect(refused.code).toBe('conflict')
    admin.retireSigningKey(ADMIN, 'example.com', 's1')
    expect(here.alert()).toBeNull()
  })

  test('every node tells it, and the later one of two looks counts', async () => {
    const cast = new Cast()
    const [here, there] = [house(cast, 'a'), house(cast, 'b')]
    const key = await active(here, 's1')
    dns.set(key.recordName, { status: 'absent' })
    await here.admin.checkKeys()
    meet(here.room, there.room)
    expect(there.alert()).not.toBeNull()
    there.room.clock.advance(60_000)
    for (let look = 0; look < 2; look += 1) await there.admin.checkKeys()
    dns.set(key.recordName, { status: 'found', records: [key.record] })
    here.room.clock.advance(120_000)
    await here.admin.checkKeys()
    meet(here.room, there.room)
    expect([here.alert(), there.alert()]).toEqual([null, null])
  })

  test('one that is removed while the DNS is asked stays removed', async () => {
    const { admin } = house()
    for (const ask of [
      () => admin.checkKeys(),
      (selector: string) => admin.checkSigningKey(ADMIN, 'example.com', selector).catch(() => {}),
    ]) {
      const selector = `s${dns.size}`
      const key = await admin.addSigningKey(ADMIN, { ...KEY, selector })
      const asked = ask(selector)
      dns.set(key.recordName, { status: 'found', records: [key.record] })
      admin.removeSigningKey(ADMIN, 'example.com', selector)
      await asked
      expect(admin.signingKeys()).toEqual([])
    }
  })

  test('the only key that signs is not retired; another one takes its place without a gap', async () => {
    const { admin } = house()
    const first = await admin.addSigningKey(ADMIN, KEY)
    dns.set(first.recordName, { status: 'found', records: [first.record] })
    await admin.checkSigningKey(ADMIN, 'example.com', 's1')
    const only = await refusal(() => admin.retireSigningKey(ADMIN, 'example.com', 's1'))
    expect(only.message).toContain('Without s1 no key')
    const second = await admin.addSigningKey(ADMIN, {
      ...KEY,
      selector: 's2',
      algorithm: 'ed25519',
    })
    expect((await refusal(() => admin.retireSigningKey(ADMIN, 'example.com', 's1'))).code).toBe(
      'conflict',
    )
    dns.set(second.recordName, { status: 'found', records: [second.record] })
    await admin.checkSigningKey(ADMIN, 'example.com', 's2')
    admin.retireSigningKey(ADMIN, 'example.com', 's1')
    admin.removeSigningKey(ADMIN, 'example.com', 's1')
    expect(
      admin.signingKeys('example.com').map(({ selector, state }) => `${selector} ${state}`),
    ).toEqual(['s2 active'])
  })

  test('bad input names its field and makes no key', async () => {
    const { admin } = house()
    await admin.addSigningKey(ADMIN, KEY)
    const rows: readonly (readonly [string, object])[] = [
      ['name', { domain: 'not a domain' }],
      ['selector', { selector: 'a b' }],
      ['selector', { selector: 's1' }],
      ['algorithm', { selector: 's2', algorithm: 'md5' }],
    ]
    for (const [field, part] of rows) {
      const error = await refusal(() => admin.addSigningKey(ADMIN, { ...KEY, ...part }))
      expect(error.field).toBe(field)
    }
    expect(admin.signingKeys()).toHaveLength(1)
    expect((await refusal(() => admin.checkSigningKey(ADMIN, 'example.com', 's9'))).code).toBe(
      'notFound',
    )
    const viewer = await refusal(() => admin.addSigningKey(VIEWER, { ...KEY, selector: 's3' }))
    expect(viewer.code).toBe('forbidden')
  })
})

/** Nodes that know of each other and of a domain; they hear each other when they meet. */
function apart(count: number): readonly House[] {
  const cast = new Cast()
  const houses = Array.from({ length: count }, (_, at) => house(cast, 'abc'[at]))
  houses[0]?.admin.putDomain(ADMIN, 'example.com', {})
  together(houses)
  return houses
}

function together(houses: readonly House[]): void {
  meet(...houses.map(({ room }) => room))
}

/** What a node says of domains, keys and secrets. */
function stateOf({ room, admin, secrets }: House) {
  return {
    domains: admin.domains().map(({ name }) => name),
    keys: admin
      .signingKeys()
      .map(({ selector, state, isHere }) => `${selector} ${state} ${isHere}`),
    secrets: secrets.names(),
    conflicts: room.conflicts.list().map(({ key }) => key),
  }
}

const NOTHING = { domains: [], keys: [], secrets: [], conflicts: [] }

describe('the keys of a domain that is removed', () => {
  test('go with it, with their secrets, on all nodes; those of others stay', async () => {
    const houses = apart(2) as [House, House]
    const [a, b] = houses
    await active(a, 's1')
    await a.admin.addSigningKey(ADMIN, { ...KEY, selector: 's2' })
    await a.admin.addSigningKey(ADMIN, { ...KEY, domain: 'mail.example.com' })
    together(houses)
    expect(b.admin.signingKeys().map(({ isHere }) => isHere)).toEqual([true, true, true])
    b.admin.removeDomain(ADMIN, 'Example.com.')
    together(houses)
    for (const each of houses)
      expect(stateOf(each)).toEqual({
        ...NOTHING,
        keys: ['s1 waiting true'],
        secrets: ['dkim:mail.example.com:s1'],
      })
    // The newest change is the one that a page offers to undo; keys do not come back.
    const [{ id = '', key } = {}] = a.room.changes.history(1)
    expect(key).toBe('domain/example.com')
    a.room.changes.undo('ruiz', id)
    expect(stateOf(a)).toMatchObject({ domains: ['example.com'], keys: ['s1 waiting true'] })
    const again = await refusal(() => a.admin.addSigningKey(ADMIN, KEY))
    expect([again.code, again.field]).toEqual(['conflict', 'selector'])
  })

  test('but one was added unseen: the domain stays with it, and who says "removed" removes both', async () => {
    const houses = apart(2) as [House, House]
    const [a, b] = houses
    await a.admin.addSigningKey(ADMIN, KEY)
    together(houses)
    a.admin.removeDomain(ADMIN, 'example.com')
    await b.admin.addSigningKey(ADMIN, { ...KEY, selector: 's2' })
    together(houses)
    for (const each of houses)
      expect(stateOf(each)).toEqual({
        domains: ['example.com'],
        keys: ['s2 waiting true'],
        secrets: ['dkim:example.com:s2'],
        conflicts: ['domain/example.com'],
      })
    const [{ sides = [] } = {}] = b.room.conflicts.list()
    b.room.conflicts.keep(
      'ruiz',
      'domain/example.com',
      sides.find(({ value }) => value === null)?.id ?? '',
    )
    await b.admin.checkKeys()
    together(houses)
    for (const each of houses) expect(stateOf(each)).toEqual(NOTHING)
  })

  test('but one began to sign unseen: it is gone, and nobody is asked which', async () => {
    const houses = apart(2) as [House, House]
    const [a, b] = houses
    await a.admin.addSigningKey(ADMIN, KEY)
    together(houses)
    a.admin.removeDomain(ADMIN, 'example.com')
    b.room.clock.advance(60_000)
    const [{ recordName = '', record = '' } = {}] = b.admin.signingKeys()
    dns.set(recordName, { status: 'found', records: [record] })
    expect((await b.admin.checkKeys()).activated).toEqual([recordName])
    together(houses)
    for (const each of houses) expect(stateOf(each)).toEqual(NOTHING)
  })

  test('but one was sealed unseen for a new member: the next look takes that away', async () => {
    const cast = new Cast()
    const [a, b] = [house(cast, 'a'), house(cast, 'b')]
    a.admin.putDomain(ADMIN, 'example.com', {})
    await a.admin.addSigningKey(ADMIN, KEY)
    together([a, b])
    a.admin.removeDomain(ADMIN, 'example.com')
    const c = house(cast, 'c')
    expect(b.secrets.share()).toBe(1)
    together([a, b, c])
    expect(a.secrets.names()).toEqual(['dkim:example.com:s1'])
    await b.admin.checkKeys()
    together([a, b, c])
    for (const each of [a, b, c]) expect(stateOf(each)).toEqual(NOTHING)
  })

  test('whatever is done on three nodes apart: they agree, no secret is without key, no key without its own', async () => {
    const domain = 'example.com'
    const act = fc.record({
      at: fc.nat(2),
      what: fc.constantFrom('add', 'drop', 'check', 'retire', 'remove', 'put', 'meet'),
      selector: fc.constantFrom('s1', 's2', 's3'),
      to: fc.nat(2),
    })
    const run = async (
      houses: readonly House[],
      { at, what, selector, to }: typeof act extends fc.Arbitrary<infer One> ? One : never,
    ): Promise<void> => {
      for (const { room } of houses) room.clock.advance(1_000)
      const [one, other] = [houses[at], houses[to]] as [House, House]
      const { admin } = one
      const key = admin.signingKeys().find((each) => each.selector === selector)
      if (what === 'meet') return together([one, other])
      if (what === 'add') return void (await admin.addSigningKey(ADMIN, { ...KEY, selector }))
      if (what === 'put') return void admin.putDomain(ADMIN, domain, { hold: 4 })
      if (what === 'remove') return admin.removeDomain(ADMIN, domain)
      if (what === 'drop') return admin.removeSigningKey(ADMIN, domain, selector)
      if (what === 'retire') return void admin.retireSigningKey(ADMIN, domain, selector)
      if (key !== undefined) dns.set(key.recordName, { status: 'found', records: [key.record] })
      await admin.checkSigningKey(ADMIN, domain, selector)
    }
    await fc.assert(
      fc.asyncProperty(fc.array(act, { minLength: 4, maxLength: 20 }), async (acts) => {
        const houses = apart(3)
        for (const each of acts) {
          await run(houses, each).catch((error: unknown) => {
            if (!(error instanceof RefusalError)) throw error
          })
        }
        together(houses)
        await houses[0]?.admin.checkKeys()
        together(houses)
        const [first] = houses as [House]
        for (const each of houses) {
          expect(stateOf(each)).toEqual(stateOf(first))
          const keys = each.admin.signingKeys()
          expect(each.secrets.names()).toEqual(keys.map((key) => `dkim:${domain}:${key.selector}`))
          for (const { publicKey, selector } of keys) {
            const der = Buffer.from(each.secrets.get(`dkim:${domain}:${selector}`) ?? [])
            const pair = createPublicKey(
              createPrivateKey({ key: der, format: 'der', type: 'pkcs8' }),
            )
            const spki = pair.export({ type: 'spki', format: 'der' })
            expect(spki.subarray(-32).toString('base64')).toBe(publicKey)
          }
        }
        for (const { room } of houses) {
          ended(room)
          room.remove()
        }
      }),
      { numRuns: 15, seed: 11 },
    )
  }, 60_000)
})
