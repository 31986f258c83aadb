/** Keys with which mail of our domains is signed: when they sign, what tells that their record is gone, how they go. */
import { afterEach, describe, expect, test } from 'bun:test'
import type { Author, SigningKeyRow } from '../src/admin/contract.ts'
import { signingPart } from '../src/admin/signing.ts'
import { lostKeysAlert } from '../src/admin/signing-alert.ts'
import { RefusalError } from '../src/base/errors.ts'
import type { DnsAnswer } from '../src/base/names.ts'
import { ClusterSecrets } from '../src/cluster/secrets.ts'
import { Cast } from './cast.ts'
import { meet } from './exchange.ts'
import { rooms } from './rooms.ts'

const ADMIN: Author = { name: 'ruiz', role: 'admin' }
const VIEWER: Author = { name: 'nagy', role: 'viewer' }
const KEY = { domain: 'example.com', selector: 's1', algorithm: 'ed25519' }

const { room: opened } = rooms()
/** Answers of the name servers by name. */
const dns = new Map<string, DnsAnswer>()
afterEach(() => dns.clear())

/** The part of a node that is about keys. */
function house(cast = new Cast(), name = 'a') {
  const room = opened()
  const { rows, random } = room
  const secrets = new ClusterSecrets({ rows, random, roster: cast.roster(cast.add(name)) })
  const names = { query: async ({ name }: { readonly name: string }) => answerOf(name) }
  const { lostKeys, ...admin } = signingPart({ ...room, secrets, names })
  return { room, admin, alert: () => lostKeysAlert(lostKeys()) }
}
type House = ReturnType<typeof house>

function answerOf(name: string): DnsAnswer {
  return dns.get(name) ?? { status: 'absent' }
}

async function refusal(act: () => unknown): Promise<RefusalError> {
  try {
    await act()
  } catch (error) {
    if (error instanceof RefusalError) return error
    throw error
  }
  throw new Error('nothing was refused')
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
    const here = house()
    const { admin } = here
    const key = await admin.addSigningKey(ADMIN, KEY)
    for (const ask of [
      () => admin.checkKeys(),
      () => admin.checkSigningKey(ADMIN, 'example.com', 's1').catch(() => {}),
    ]) {
      if (admin.signingKeys().length === 0) await admin.addSigningKey(ADMIN, KEY)
      const [{ record = '' } = {}] = admin.signingKeys()
      const asked = ask()
      dns.set(key.recordName, { status: 'found', records: [record] })
      admin.removeSigningKey(ADMIN, 'example.com', 's1')
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
