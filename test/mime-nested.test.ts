/** Mails in mails, pieces, sealed content, and views of one content: E19, E21 and E25 of the catalogue. */
import { describe, expect, test } from 'bun:test'
import { Mail } from '../src/message/mime.ts'
import { cte, ENCODINGS, fate, file, findingsOf, HEAD, mail } from './mime-world.ts'

const join = (...lines: readonly string[]): Buffer =>
  Buffer.from([...HEAD, ...lines, ''].join('\r\n'), 'latin1')
const rules = (raw: Buffer): readonly string[] => findingsOf(raw).map(({ rule }) => rule)

describe('E19 mails in mails', () => {
  for (const encoding of ENCODINGS) {
    const inner = mail({ fields: file(cte(encoding.name)), payload: encoding.payload }).toString(
      'latin1',
    )
    const wrapped = (type: string, content: string, ...fields: readonly string[]): Buffer =>
      join(`Content-Type: ${type}`, ...fields, '', content)
    test(`a file in an attached mail, ${encoding.name}: found`, () => {
      for (const type of [
        'message/rfc822',
        'message/global',
        'MESSAGE/RFC822',
        'message/news',
        'multipart/mixed; boundary=x\r\n\r\n--x\r\nContent-Type: message/rfc822',
      ]) {
        expect(fate(wrapped(type, inner))).toBe('found')
      }
    })
    test(`the same mail encoded, ${encoding.name}: found`, () => {
      const base64 = Buffer.from(inner, 'latin1').toString('base64')
      expect(fate(wrapped('message/rfc822', base64, cte('base64')))).toBe('found')
      expect(
        fate(wrapped('message/rfc822', inner.replaceAll('=', '=3D'), cte('quoted-printable'))),
      ).toBe('found')
    })
    test(`a digest has mails without saying so, ${encoding.name}: found`, () => {
      expect(
        fate(join('Content-Type: multipart/digest; boundary=d', '', '--d', '', inner, '--d--')),
      ).toBe('found')
    })
    test(`a mail under the wrong type, ${encoding.name}: found`, () => {
      for (const type of [
        'message/x-rfc822',
        'message/delivery-status',
        'application/octet-stream; name=a.eml',
        'text/plain',
        'text/rfc822-headers',
      ]) {
        expect(fate(wrapped(type, inner))).toBe('found')
      }
    })
  }
  test('a thousand mails in each other are a limit, never clean', () => {
    const raw = Buffer.from(`${'Content-Type: message/rfc822\r\n\r\n'.repeat(1_000)}x`)
    expect(rules(raw)).toContain('MIME_LIMIT')
    expect(fate(raw)).toBe('held')
  })
  test('a piece of a mail is held', () => {
    expect(fate(join('Content-Type: message/partial; id=a; number=1; total=2', '', 'x'))).toBe(
      'held',
    )
  })
  test('content that lies elsewhere is said', () => {
    expect(
      rules(
        join(
          'Content-Type: message/external-body; access-type=URL; URL="http://a.example/"',
          '',
          'Content-Type: image/gif',
          '',
          '',
        ),
      ),
    ).toContain('MESSAGE_EXTERNAL')
  })
})

describe('E21 what nobody can look into', () => {
  const sealed: readonly (readonly [string, Buffer])[] = [
    [
      'S/MIME',
      join(
        'Content-Type: application/pkcs7-mime; smime-type=enveloped-data; name=smime.p7m',
        cte('base64'),
        '',
        'MIAGCSqGSIb3DQEHA6CAMIACAQAxAAAA',
      ),
    ],
    [
      'S/MIME by its old name',
      join(
        'Content-Type: application/x-pkcs7-mime; name=smime.p7m',
        cte('base64'),
        '',
        'MIAGCSqGSIb3DQEHA6CAMIACAQAxAAAA',
      ),
    ],
    [
      'S/MIME with authentication',
      join(
        'Content-Type: application/pkcs7-mime; smime-type=authEnveloped-data',
        cte('base64'),
        '',
        'MIAGCyqGSIb3DQEJEAEXoIAwgAIBAA==',
      ),
    ],
    [
      'PGP/MIME',
      join(
        'Content-Type: multipart/encrypted; protocol="application/pgp-encrypted"; boundary=b',
        '',
        '--b',
        'Content-Type: application/pgp-encrypted',
        '',
        'Version: 1',
        '--b',
        'Content-Type: application/octet-stream',
        '',
        '-----BEGIN PGP MESSAGE-----',
        '',
        'hQEMA',
        '-----END PGP MESSAGE-----',
        '--b--',
      ),
    ],
    [
      'PGP in the text',
      join(
        '',
        'Hello',
        '',
        '-----BEGIN PGP MESSAGE-----',
        '',
        'hQEMA',
        '-----END PGP MESSAGE-----',
      ),
    ],
  ]
  for (const [name, raw] of sealed) {
    test(`${name} is said, and is no offence by itself`, () => {
      const findings = findingsOf(raw)
      expect(findings.map(({ rule }) => rule)).toEqual(['ENCRYPTED_MAIL'])
      expect(findings[0]?.score).toBe(0)
    })
  }
  test('a signature is not encryption', () => {
    for (const raw of [
      join(
        'Content-Type: multipart/signed; protocol="application/pkcs7-signature"; boundary=b',
        '',
        '--b',
        '',
        'x',
        '--b',
        'Content-Type: application/pkcs7-signature; name=smime.p7s',
        cte('base64'),
        '',
        'MIAGCSqGSIb3DQEHAqCA',
        '--b--',
      ),
      join(
        '',
        '-----BEGIN PGP SIGNED MESSAGE-----',
        'Hash: SHA256',
        '',
        'x',
        '-----BEGIN PGP SIGNATURE-----',
        '',
        'iQ',
        '-----END PGP SIGNATURE-----',
      ),
    ]) {
      expect(rules(raw)).toEqual([])
    }
  })
  const der = (tag: number, ...content: readonly Buffer[]): Buffer => {
    const body = Buffer.concat(content)
    const size = body.length < 128 ? [body.length] : [0x82, body.length >> 8, body.length & 255]
    return Buffer.concat([Buffer.from([tag, ...size]), body])
  }
  const endless = (tag: number, ...content: readonly Buffer[]): Buffer =>
    Buffer.concat([Buffer.from([tag, 0x80]), ...content, Buffer.alloc(2)])
  const oid = (hex: string): Buffer => der(6, Buffer.from(hex, 'hex'))
  const signed = (content: Buffer): Buffer =>
    der(
      0x30,
      oid('2a864886f70d010702'),
      der(
        0xa0,
        der(
          0x30,
          der(2, Buffer.from([1])),
          der(0x31),
          der(0x30, oid('2a864886f70d010701'), der(0xa0, content)),
          der(0x31),
        ),
      ),
    )
  const opaque = (bytes: Buffer, type = 'application/pkcs7-mime; smime-type=signed-data'): Buffer =>
    join(
      `Content-Type: ${type}; name=smime.p7m`,
      cte('base64'),
      '',
      (bytes.toString('base64').match(/.{1,76}/g) ?? []).join('\r\n'),
    )
  for (const encoding of ENCODINGS) {
    const inner = mail({ head: [], fields: file(cte(encoding.name)), payload: encoding.payload })
    test(`a mail inside its signature is looked into, ${encoding.name}`, () => {
      expect(fate(opaque(signed(der(4, inner))))).toBe('found')
      const halves = [inner.subarray(0, 150), inner.subarray(150)]
      expect(fate(opaque(signed(endless(0x24, ...halves.map((half) => der(4, half))))))).toBe(
        'found',
      )
      expect(fate(opaque(signed(der(4, inner)), 'application/octet-stream'))).toBe('found')
    })
  }
})

describe('E25 one content in several views', () => {
  for (const encoding of ENCODINGS) {
    const part = [...file(cte(encoding.name)), '', encoding.payload]
    test(`only in one alternative, ${encoding.name}: found`, () => {
      expect(
        fate(
          join(
            'Content-Type: multipart/alternative; boundary=b',
            '',
            '--b',
            'Content-Type: text/plain',
            '',
            'x',
            '--b',
            ...part,
            '--b--',
          ),
        ),
      ).toBe('found')
    })
    test(`a related multipart without its root, ${encoding.name}: found`, () => {
      expect(
        fate(
          join(
            'Content-Type: multipart/related; start="<none@x>"; type="text/html"; boundary=b',
            '',
            '--b',
            ...part,
            '--b--',
          ),
        ),
      ).toBe('found')
    })
  }
  test('both alternatives are leaves of the tree', () => {
    const { leaves } = new Mail(
      join(
        'Content-Type: multipart/alternative; boundary=b',
        '',
        '--b',
        'Content-Type: text/plain',
        '',
        'benign',
        '--b',
        'Content-Type: text/html',
        '',
        '<p style="font-size:0">hidden</p>',
        '--b--',
      ),
    )
    expect(leaves.map(({ type, view }) => [type, view])).toEqual([
      ['text/plain', 'strict'],
      ['text/html', 'strict'],
    ])
  })
})
