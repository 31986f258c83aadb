/** Seals of our own (ARC) on mail that is passed on: another library finds the chain whole, or broken where it is. */
import { describe, expect, test } from 'bun:test'
import { createPrivateKey, createPublicKey, generateKeyPairSync, verify } from 'node:crypto'
import { arc, createSeal } from 'mailauth/lib/arc/index.js'
import { dkimVerify } from 'mailauth/lib/dkim/verify.js'
import { initialSettings } from '../src/config/schema.ts'
import { recordName, recordText, type SigningKey } from '../src/config/signing.ts'
import { without } from '../src/mail/inspect/auth/fields.ts'
import { Signatures } from '../src/mail/signatures.ts'
import { relaxedField } from '../src/message/relaxed.ts'
import { lookIn, type Zone } from './zone.ts'

type Made = { readonly key: SigningKey; readonly secret: Uint8Array; readonly pem: string }

function made(domain: string, algorithm: SigningKey['algorithm'], selector = 's1'): Made {
  const pair =
    algorithm === 'rsa'
      ? generateKeyPairSync('rsa', { modulusLength: 2_048 })
      : generateKeyPairSync('ed25519')
  const spki = pair.publicKey.export({ type: 'spki', format: 'der' })
  const publicKey = (algorithm === 'rsa' ? spki : spki.subarray(-32)).toString('base64')
  return {
    key: { domain, selector, algorithm, publicKey, state: 'active' },
    secret: new Uint8Array(pair.privateKey.export({ type: 'pkcs8', format: 'der' })),
    pem: pair.privateKey.export({ type: 'pkcs8', format: 'pem' }).toString(),
  }
}

const OURS = made('ours.example', 'rsa')
const EDWARDS = made('ours.example', 'ed25519', 's2')
const NEXT = made('next.example', 'rsa')
const LIST = made('list.example', 'rsa')
const ZONE: Zone = Object.fromEntries(
  [OURS, EDWARDS, NEXT, LIST].map(({ key }) => [recordName(key), { TXT: [recordText(key)] }]),
)

const MAIL = Buffer.from(
  [
    'Authentication-Results: mx.ours.example; dmarc=pass',
    'DKIM-Signature: v=1; a=rsa-sha256; d=author.example; s=x; h=from; bh=aa; b=bb',
    'From: Ann <a@author.example>',
    'To: b@ours.example',
    'Subject: Minutes of  Monday',
    '',
    'Hello. ',
    '',
    '',
  ].join('\r\n'),
)

type Hop = {
  readonly keys?: readonly Made[]
  readonly seal?: 'on' | 'off'
  readonly recipient?: string
  readonly zone?: Zone
  /** The main process has no secret. */
  readonly isEmpty?: boolean
}

/** The mail as a gateway passes it on, and the names of keys that were missing. */
async function through(raw: Buffer, hop: Hop = {}): Promise<{ sent: Buffer; missing: string[] }> {
  const { keys = [OURS], seal = 'on', zone = ZONE, isEmpty = false } = hop
  const domain = keys[0]?.key.domain ?? 'ours.example'
  const { onward } = await lookIn(zone, raw, {
    inspectors: ['sender'],
    session: { recipients: [hop.recipient ?? `B@${domain.toUpperCase()}`] },
    config: {
      domains: [domain],
      authority: `mx.${domain}`,
      signing: { [domain]: keys.map(({ key }) => key) },
      settings: { ...initialSettings(), 'sender.seal': seal },
    },
  })
  const missing: string[] = []
  const secretOf = (selector: string) => keys.find(({ key }) => key.selector === selector)?.secret
  const fields = await new Signatures((_, selector) =>
    isEmpty ? null : (secretOf(selector) ?? null),
  ).fields(onward.toSign, ({ selector }) => missing.push(selector))
  const above = Buffer.from(`Received: by mx.${domain}\r\n${fields}${onward.fields}`, 'latin1')
  return { sent: Buffer.concat([above, without(raw, onward.cuts)]), missing }
}

/** As mailauth sees it: `RESULT INSTANCE`. */
async function chainOf(raw: Buffer): Promise<string> {
  const resolver = async (name: string, type: string): Promise<string[][]> => {
    const found = ZONE[name]?.[type]
    if (found === undefined || typeof found === 'string')
      throw Object.assign(new Error(name), { code: 'ENOTFOUND' })
    return [[...found]]
  }
  const data = (await dkimVerify(raw, { resolver, strict: true } as never)).arc as never
  const { status, i } = await arc(data, { resolver, strict: true } as never)
  return `${status.result} ${i}`
}

function fieldsOf(raw: Buffer, name: string): readonly string[] {
  const head = raw.toString('latin1').split('\r\n\r\n')[0] ?? ''
  return head
    .replace(/\r\n[ \t]+/g, ' ')
    .split('\r\n')
    .filter((line) => line.toLowerCase().startsWith(`${name}:`))
}

/** As a list that seals with mailauth does it. */
async function listed(raw: Buffer, cv: 'none' | 'pass' = 'none'): Promise<Buffer> {
  const { headers } = await createSeal(raw, {
    seal: {
      signingDomain: 'list.example',
      selector: 's1',
      privateKey: LIST.pem,
      authResults: 'list.example; spf=pass',
      cv,
    },
  } as never)
  return Buffer.concat([Buffer.from(`${headers.join('\r\n')}\r\n`), raw])
}

const changed = (raw: Buffer): Buffer =>
  Buffer.from(raw.toString('latin1').replace('Hello.', 'Pay.'), 'latin1')

describe('mail that is passed on', () => {
  test('is sealed with our results, by the key of the domain of its recipient', async () => {
    const { sent } = await through(MAIL)
    expect(await chainOf(sent)).toBe('pass 1')
    const [results = ''] = fieldsOf(sent, 'arc-authentication-results')
    const [own = ''] = fieldsOf(sent, 'authentication-results')
    expect(results).toBe(`ARC-${own.replace(': ', ': i=1; ')}`)
    expect(results).toContain('dmarc=none header.from=author.example')
    expect(fieldsOf(sent, 'arc-seal')[0]).toStartWith(
      'ARC-Seal: i=1; a=rsa-sha256; cv=none; d=ours.example; s=s1; b=',
    )
    // Changed on its way, it is found changed.
    expect(await chainOf(changed(sent))).toBe('fail 1')
    const subject = sent.toString('latin1').replace('Minutes', 'Money')
    expect(await chainOf(Buffer.from(subject, 'latin1'))).toBe('fail 1')
    const doubled = sent.toString('latin1').replace('From: Ann', 'From: x@y.example\r\nFrom: Ann')
    expect(await chainOf(Buffer.from(doubled, 'latin1'))).toBe('fail 1')
  })

  test('is sealed by Ed25519 where there is nothing else', async () => {
    const { sent } = await through(MAIL, { keys: [EDWARDS] })
    expect(await chainOf(sent)).toBe('pass 1')
    const both = (await through(MAIL, { keys: [EDWARDS, OURS] })).sent
    expect(fieldsOf(both, 'arc-seal')[0]).toContain('a=rsa-sha256')
  })

  test('keeps a chain whole over several hops, of ours and of others', async () => {
    const second = (await through((await through(MAIL)).sent, { keys: [NEXT] })).sent
    expect(await chainOf(second)).toBe('pass 2')
    expect(fieldsOf(second, 'arc-authentication-results')[0]).toContain('; arc=pass;')
    const third = (await through(second, { keys: [EDWARDS] })).sent
    expect(await chainOf(third)).toBe('pass 3')
    expect(fieldsOf(third, 'arc-seal').map((field) => /cv=(\w+)/.exec(field)?.[1])).toEqual([
      'pass',
      'pass',
      'none',
    ])
    // A seal in the middle that was taken from another mail breaks it.
    const [seal = ''] = /ARC-Seal: i=2;[\s\S]*?(?=ARC-Message)/.exec(third.toString('latin1')) ?? []
    const other = seal.replace(/b=(.)/, (_, first) => `b=${first === 'A' ? 'B' : 'A'}`)
    expect(seal).not.toBe('')
    const torn = third.toString('latin1').replace(seal, other)
    expect(await chainOf(Buffer.from(torn, 'latin1'))).toBe('fail 3')
  })

  test('keeps the chain of another library whole, which keeps ours', async () => {
    const { sent } = await through(await listed(MAIL))
    expect(await chainOf(sent)).toBe('pass 2')
    expect(await chainOf((await through(sent, { keys: [NEXT] })).sent)).toBe('pass 3')
  })

  test('with a broken chain says once that it is broken, and nothing of it is vouched for', async () => {
    const second = (await through(changed(await listed(MAIL)))).sent
    expect(fieldsOf(second, 'arc-seal')[0]).toContain('i=2; a=rsa-sha256; cv=fail;')
    expect(await chainOf(second)).toStartWith('fail')
    // Its seal goes over its own set alone (RFC 8617 section 5.1.2).
    const [seal = '', results = '', message = ''] = [
      fieldsOf(second, 'arc-seal')[0],
      fieldsOf(second, 'arc-authentication-results')[0],
      fieldsOf(second, 'arc-message-signature')[0],
    ]
    const [, bare = '', signature = ''] = /^(.* b=)(.*)$/.exec(seal) ?? []
    const text = [results, message, bare].map(relaxedField).join('\r\n')
    const publicKey = createPublicKey(createPrivateKey(OURS.pem))
    const octets = Buffer.from(signature.replaceAll(' ', ''), 'base64')
    expect(verify('sha256', Buffer.from(text), publicKey, octets)).toBeTrue()
    const third = (await through(second, { keys: [NEXT] })).sent
    expect(fieldsOf(third, 'arc-seal')).toHaveLength(2)
    expect(fieldsOf(third, 'arc-authentication-results')).toHaveLength(2)
  })

  test('is not sealed where the name servers keep its chain from being checked', async () => {
    const listedMail = await listed(MAIL)
    const zone = { ...ZONE, 's1._domainkey.list.example': { TXT: 'SERVFAIL' } }
    const { sent } = await through(listedMail, { zone })
    expect(fieldsOf(sent, 'arc-seal')).toHaveLength(1)
    // Its chain is still good for who can check it.
    expect(await chainOf(sent)).toBe('pass 1')
  })

  test('nor where only the key of the signature in it does not come', async () => {
    const split = (await listed(MAIL))
      .toString('latin1')
      .replace(/(ARC-Message-Signature:[\s\S]*?s=)s1/, '$1s9')
    const zone = { ...ZONE, 's9._domainkey.list.example': { TXT: 'SERVFAIL' } }
    const { sent } = await through(Buffer.from(split, 'latin1'), { zone })
    expect(fieldsOf(sent, 'arc-seal')).toHaveLength(1)
  })

  const none: readonly (readonly [string, Hop])[] = [
    ['the setting is off', { seal: 'off' }],
    ['the domain has no key', { recipient: 'b@other.example' }],
    ['there is no key', { keys: [] }],
  ]
  for (const [name, hop] of none) {
    test(`is as it was where ${name}`, async () => {
      const { sent } = await through(MAIL, hop)
      expect(sent.toString('latin1').toLowerCase()).not.toContain('arc-')
    })
  }

  test('gets no part of a seal when the key has not come to this node, and that is told', async () => {
    const { sent, missing } = await through(MAIL, { isEmpty: true })
    expect(missing).toEqual(['s1'])
    expect(sent.toString('latin1').toLowerCase()).not.toContain('arc-')
  })

  test('gets no 51st seal', async () => {
    const full = Buffer.concat([Buffer.from('ARC-Seal: i=50; cv=pass; b=aa\r\n'), MAIL])
    expect(fieldsOf((await through(full)).sent, 'arc-seal')).toHaveLength(1)
    const last = Buffer.concat([Buffer.from('ARC-Seal: i=49; cv=pass; b=aa\r\n'), MAIL])
    expect(fieldsOf((await through(last)).sent, 'arc-seal')[0]).toContain(
      'i=50; a=rsa-sha256; cv=fail',
    )
  })
})
