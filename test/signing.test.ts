/** Signatures of our own on mail that goes out: another library finds them good, and a changed mail bad. */
import { describe, expect, test } from 'bun:test'
import { generateKeyPairSync } from 'node:crypto'
import fc from 'fast-check'
import { dkimVerify } from 'mailauth/lib/dkim/verify.js'
import { isRecordOf, recordName, recordText, type SigningKey } from '../src/config/signing.ts'
import { relaxedBody } from '../src/mail/inspect/signing.ts'
import { Signatures } from '../src/mail/signatures.ts'
import { lookAt } from './look.ts'

type Made = { readonly key: SigningKey; readonly secret: Uint8Array }

function made(algorithm: 'rsa' | 'ed25519', selector: string): Made {
  const pair =
    algorithm === 'rsa'
      ? generateKeyPairSync('rsa', { modulusLength: 2_048 })
      : generateKeyPairSync('ed25519')
  const spki = pair.publicKey.export({ type: 'spki', format: 'der' })
  const publicKey = (algorithm === 'rsa' ? spki : spki.subarray(-32)).toString('base64')
  return {
    key: { domain: 'ours.example', selector, algorithm, publicKey, state: 'active' },
    secret: new Uint8Array(pair.privateKey.export({ type: 'pkcs8', format: 'der' })),
  }
}

const RSA = made('rsa', 's1')
const ED = made('ed25519', 's2')

async function fieldsOf(raw: Buffer, keys: readonly Made[], outbound = true): Promise<string> {
  const { onward } = lookAt(
    raw,
    {
      inspectors: ['signing'],
      session: { outbound },
      config: { signing: { 'ours.example': keys.map(({ key }) => key) } },
    },
    (answer) => expect(answer).toEqual({ inspector: 'signing', findings: [] }),
  )
  const signatures = new Signatures(
    (_, selector) => keys.find(({ key }) => key.selector === selector)?.secret ?? null,
  )
  return await signatures.fields(onward.toSign, ({ selector }) => {
    throw new Error(`no key ${selector}`)
  })
}

async function resultsOf(raw: Buffer): Promise<string[]> {
  const { results } = await dkimVerify(raw, {
    resolver: async (name: string, type: string) => {
      const found = [RSA, ED].find(({ key }) => recordName(key) === name)
      if (type !== 'TXT' || found === undefined)
        throw Object.assign(new Error('x'), { code: 'ENOTFOUND' })
      return [[recordText(found.key)]]
    },
  })
  return results.map(({ status, selector }: { status: { result: string }; selector?: string }) =>
    `${selector ?? ''} ${status.result}`.trim(),
  )
}

function mail(body: string, more: readonly string[] = []): Buffer {
  const head = [
    'From: Ann <ann@ours.example>',
    'To: b@other.example',
    'Subject: Minutes of  Monday',
    ...more,
  ]
  return Buffer.from([...head, '', body].join('\r\n'))
}

describe('mail that goes out', () => {
  const bodies: readonly (readonly [string, string])[] = [
    ['a letter', 'Hello.\r\n\r\nYours\r\n'],
    ['no body', ''],
    ['empty lines only', '\r\n\r\n\r\n'],
    ['blanks of all kinds', ' a \t b  \r\n\t\r\n  \r\nc \r\n \r\n\r\n'],
    ['no line end at its end', 'Hello'],
    ['octets above 127', 'Gr\xfc\xdfe \xff\r\n'],
    ['a long line', `${'x '.repeat(5_000)}\r\n`],
  ]
  for (const [name, body] of bodies) {
    test(`is signed by all keys of its domain: ${name}`, async () => {
      const raw = Buffer.from(mail(body).toString('latin1'), 'latin1')
      const fields = await fieldsOf(raw, [RSA, ED])
      expect(await resultsOf(Buffer.concat([Buffer.from(fields), raw]))).toEqual([
        's1 pass',
        's2 pass',
      ])
      // Another gateway adds fields above: they are not signed.
      const relayed = Buffer.concat([Buffer.from('Received: by x\r\n'), Buffer.from(fields), raw])
      expect(await resultsOf(relayed)).toEqual(['s1 pass', 's2 pass'])
    })
  }

  test('folded and doubled fields, and those that nobody signs, are as they were', async () => {
    const raw = mail('Hello.\r\n', [
      'References: <a@b>\r\n <c@d>',
      'X-Own: 1',
      'Cc: a@b.example',
      'Cc: c@d.example',
    ])
    expect(await resultsOf(Buffer.concat([Buffer.from(await fieldsOf(raw, [RSA])), raw]))).toEqual([
      's1 pass',
    ])
  })

  const changes: readonly (readonly [string, (text: string) => string])[] = [
    ['its body', (text) => text.replace('Hello', 'Hallo')],
    ['its subject', (text) => text.replace('Minutes', 'Money')],
    ['a From that was added', (text) => text.replace('From:', 'From: x@evil.example\r\nFrom:')],
    [
      'a Subject that was added below',
      (text) => text.replace('\r\n\r\n', '\r\nSubject: Other\r\n\r\n'),
    ],
    [
      'a Reply-To that was not there',
      (text) => text.replace('\r\n\r\n', '\r\nReply-To: x@evil.example\r\n\r\n'),
    ],
    ['text at its end', (text) => `${text}More.\r\n`],
  ]
  for (const [name, change] of changes) {
    test(`with another thing in it is found changed: ${name}`, async () => {
      const raw = mail('Hello.\r\n')
      const signed = (await fieldsOf(raw, [RSA])) + raw.toString('latin1')
      expect(await resultsOf(Buffer.from(change(signed)))).not.toContain('s1 pass')
    })
  }

  test('is signed by the domain of its author only, or the one above it', async () => {
    const of = (from: string): Promise<string> =>
      fieldsOf(Buffer.from(`From: ${from}\r\n\r\nx\r\n`), [RSA])
    expect(await of('a@mail.ours.example')).toContain('d=ours.example')
    expect(await of('a@other.example')).toBe('')
    expect(await of('a@yours.example')).toBe('')
    expect(await of('a@ours.example, b@ours.example')).toBe('')
    expect(await of('')).toBe('')
    expect(await fieldsOf(mail('x'), [RSA], false)).toBe('')
  })

  test('a key that has not come yet or is none is told, and the others sign', async () => {
    const raw = mail('x\r\n')
    const { onward } = lookAt(
      raw,
      {
        inspectors: ['signing'],
        session: { outbound: true },
        config: { signing: { 'ours.example': [RSA.key, ED.key] } },
      },
      () => {},
    )
    let fields = ''
    for (const none of [null, new Uint8Array(40)]) {
      const missing: string[] = []
      const signatures = new Signatures((_, selector) => (selector === 's2' ? ED.secret : none))
      fields = await signatures.fields(onward.toSign, ({ selector }) => missing.push(selector))
      expect(missing).toEqual(['s1'])
      expect(fields.match(/DKIM-Signature:/g)).toHaveLength(1)
    }
    for (const line of fields.split('\r\n')) expect(line.length).toBeLessThan(1_000)
  })

  test('a relaxed body is the same however its blanks and its end are written', () => {
    const word = fc.constantFrom('a', 'b', ' ', '\t', '\r\n', '  ')
    fc.assert(
      fc.property(fc.array(word, { maxLength: 30 }), (words) => {
        const text = words.join('')
        const once = relaxedBody(Buffer.from(text), 0).toString()
        const lines = text
          .split('\r\n')
          .map((line) => line.replace(/[ \t]+/g, ' ').replace(/ $/, ''))
        while (lines.at(-1) === '') lines.pop()
        expect(once).toBe(lines.map((line) => `${line}\r\n`).join(''))
        expect(relaxedBody(Buffer.from(once), 0).toString()).toBe(once)
      }),
      { numRuns: 5_000, seed: 3 },
    )
  })
})

describe('the record of a key', () => {
  const text = recordText(RSA.key)
  const rows: readonly (readonly [string, string, boolean])[] = [
    ['as we give it', text, true],
    [
      'with blanks and other tags',
      `v=DKIM1 ; t=s; k=rsa;\tp=${RSA.key.publicKey.slice(0, 90)} ${RSA.key.publicKey.slice(90)}; n=x`,
      true,
    ],
    ['without a kind', text.replace(' k=rsa;', ''), true],
    ['of another key', recordText({ ...RSA.key, publicKey: ED.key.publicKey }), false],
    ['of another kind', text.replace('k=rsa', 'k=ed25519'), false],
    ['revoked', 'v=DKIM1; p=', false],
    ['of something else', 'v=spf1 -all', false],
  ]
  for (const [name, record, expected] of rows)
    test(name, () => expect(isRecordOf(RSA.key, record)).toBe(expected))
})
