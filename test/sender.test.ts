/** Who sent it: what each result weighs, what is unknown, what is told to the next hop, and what is forged. */
import { describe, expect, test } from 'bun:test'
import { generateKeyPairSync } from 'node:crypto'
import { createSeal } from 'mailauth/lib/arc/index.js'
import { dkimSign } from 'mailauth/lib/dkim/sign.js'
import { initialSettings } from '../src/config/schema.ts'
import { without } from '../src/mail/inspect/auth/fields.ts'
import type { SessionFacts } from '../src/mail/inspect/look.ts'
import { lookIn, type Zone } from './zone.ts'

const RSA = generateKeyPairSync('rsa', {
  modulusLength: 2048,
  privateKeyEncoding: { type: 'pkcs8', format: 'pem' },
  publicKeyEncoding: { type: 'spki', format: 'der' },
})
const WEAK = generateKeyPairSync('rsa', {
  modulusLength: 512,
  privateKeyEncoding: { type: 'pkcs8', format: 'pem' },
  publicKeyEncoding: { type: 'spki', format: 'der' },
})
const key = (pair: typeof RSA): string => `v=DKIM1; k=rsa; p=${pair.publicKey.toString('base64')}`

const ZONE: Zone = {
  'good.example': { TXT: ['v=spf1 ip4:192.0.2.1 -all'] },
  's1._domainkey.good.example': { TXT: [key(RSA)] },
  'weak._domainkey.good.example': { TXT: [key(WEAK)] },
  '_dmarc.good.example': { TXT: ['v=DMARC1; p=reject'] },
  'strict.example': { TXT: ['v=spf1 -all'] },
  '_dmarc.strict.example': { TXT: ['v=DMARC1; p=quarantine; adkim=s; aspf=s'] },
  's1._domainkey.mail.strict.example': { TXT: [key(RSA)] },
  '_dmarc.testing.example': { TXT: ['v=DMARC1; p=reject; t=y'] },
  '_dmarc.np.example': { TXT: ['v=DMARC1; p=none; np=reject'] },
  'is.np.example': { A: ['192.0.2.9'] },
  '_dmarc.lost.example': { TXT: 'SERVFAIL' },
  'vague.example': { TXT: ['v=spf1 include:dead.example ~all'] },
  'dead.example': { TXT: 'SERVFAIL' },
  '_dmarc.vague.example': { TXT: ['v=DMARC1; p=reject'] },
  'mild.example': { TXT: ['v=spf1 include:dead.example ~all'] },
  '_dmarc.mild.example': { TXT: ['v=DMARC1; p=none'] },
  'ours.example': { TXT: ['v=spf1 ip4:198.51.100.1 ~all'] },
  's1._domainkey.list.example': { TXT: [key(RSA)] },
  'deep.example': { TXT: ['v=spf1 include:a.deep.example include:b.deep.example -all'] },
  'a.deep.example': { TXT: ['v=spf1 include:c.deep.example -all'] },
  'b.deep.example': { TXT: ['v=spf1 a:d.deep.example mx:e.deep.example -all'] },
  'c.deep.example': { TXT: ['v=spf1 ip4:203.0.113.1 -all'] },
  'e.deep.example': { MX: ['10 f.deep.example'] },
  'f.deep.example': { A: ['192.0.2.1'] },
}

function mail(from: string, body = 'Hello.\r\n', more = ''): Buffer {
  return Buffer.from(
    `${more}From: ${from}\r\nTo: b@ours.example\r\nSubject: Hello\r\nDate: Sun, 22 Nov 2026 10:00:00 +0000\r\nMessage-ID: <1@x.example>\r\n\r\n${body}`,
  )
}

type Signing = {
  readonly domain?: string
  readonly selector?: string
  readonly pair?: typeof RSA
  readonly more?: object
}

async function signed(
  raw: Buffer,
  { domain = 'good.example', selector = 's1', pair = RSA, more = {} }: Signing = {},
) {
  const made = await dkimSign(raw, {
    canonicalization: 'relaxed/relaxed',
    ...more,
    signatureData: [
      {
        signingDomain: domain,
        selector,
        privateKey: pair.privateKey,
        algorithm: 'rsa-sha256',
        ...more,
      },
    ],
  } as Parameters<typeof dkimSign>[1])
  return Buffer.concat([Buffer.from(made.signatures), raw])
}

async function look(
  raw: Buffer,
  session: Partial<SessionFacts> = {},
  settings: Partial<ReturnType<typeof initialSettings>> = {},
  zone: Zone = ZONE,
) {
  const seen = await lookIn(zone, raw, {
    session: {
      clientIp: '203.0.113.66',
      greeting: 'mx.stranger.example',
      sender: 'a@stranger.example',
      ...session,
    },
    config: {
      domains: ['ours.example'],
      authority: 'mx.ours.example',
      settings: { ...initialSettings(), ...settings },
    },
    inspectors: ['impersonation', 'sender'],
  })
  const rules = seen.findings.map(({ rule }) => rule)
  return {
    ...seen,
    rules,
    score: (rule: string) => seen.findings.find((each) => each.rule === rule)?.score,
  }
}

describe('weights', () => {
  test('a mail from a server of its domain, signed, vouches for its author', async () => {
    const raw = await signed(mail('a@good.example'))
    const { rules, insight } = await look(raw, { clientIp: '192.0.2.1', sender: 'a@good.example' })
    expect(rules).toEqual(['SPF_PASS', 'DKIM_VALID', 'DMARC_PASS'])
    expect(insight.authenticated).toEqual(['good.example'])
  })

  test('from anywhere else without a signature it is what the domain asks for', async () => {
    const { rules, insight, findings } = await look(mail('a@good.example'), {
      sender: 'a@good.example',
    })
    expect(rules).toEqual(['SPF_FAIL', 'DMARC_REJECT'])
    expect(insight.authenticated).toEqual([])
    expect(findings[0]?.evidence).toBe(
      "The sender's domain good.example names the servers that may send for it; 203.0.113.66 is not one of them.",
    )
  })

  test('a signature over another domain does not help it', async () => {
    const raw = await signed(mail('a@good.example'), { domain: 'list.example' })
    expect((await look(raw)).rules).toEqual(['DKIM_VALID', 'DMARC_REJECT'])
  })

  test('strict alignment takes no subdomain', async () => {
    const raw = await signed(mail('a@strict.example'), { domain: 'mail.strict.example' })
    expect((await look(raw)).rules).toEqual(['DKIM_VALID', 'DMARC_QUARANTINE'])
  })

  test('t=y is one step milder; np is for names that are not there', async () => {
    expect((await look(mail('a@testing.example'))).rules).toEqual(['DMARC_QUARANTINE'])
    expect((await look(mail('a@no.np.example'))).rules).toEqual(['DMARC_REJECT'])
    expect((await look(mail('a@is.np.example'))).rules).toEqual(['DMARC_NONE'])
  })

  test('a key of 512 bits, and SHA-1, are of no use', async () => {
    const weak = await signed(mail('a@good.example'), { selector: 'weak', pair: WEAK })
    expect((await look(weak)).rules).toEqual(['DKIM_INVALID', 'DMARC_REJECT'])
    const old = await signed(mail('a@good.example'), { more: { algorithm: 'rsa-sha1' } })
    const { rules, findings } = await look(old)
    expect(rules).toEqual(['DKIM_INVALID', 'DMARC_REJECT'])
    expect(findings[0]?.evidence).toContain('SHA-1')
  })

  test('what is written below the signed part of the body (l=) has no author', async () => {
    const raw = await signed(mail('a@good.example'), { more: { maxBodyLength: 8 } })
    expect((await look(raw)).rules).toEqual(['DKIM_VALID', 'DKIM_PARTIAL', 'DMARC_PASS'])
    const added = Buffer.concat([raw, Buffer.from('Pay to this account instead.\r\n')])
    const { rules, score } = await look(added)
    expect(rules).toEqual(['DKIM_VALID', 'DKIM_PARTIAL', 'DMARC_REJECT'])
    expect(score('DKIM_PARTIAL')).toBe(2)
  })

  test('a signature that has ended when the mail comes is of no use', async () => {
    const raw = await signed(mail('a@good.example'), {
      more: { signTime: new Date(1_000_000_000_000), expires: new Date(1_000_000_600_000) },
    })
    expect((await look(raw, { receivedMs: 1_000_000_300_000 })).rules).toContain('DMARC_PASS')
    expect((await look(raw, { receivedMs: 1_000_000_900_000 })).rules).toContain('DMARC_REJECT')
  })

  test('of a thousand signatures ten are looked at', async () => {
    const one = (index: number): string =>
      `DKIM-Signature: v=1; a=rsa-sha256; c=simple/simple; d=d${index}.example; s=s; l=${index}; h=from; bh=x; b=x\r\n`
    const many = Array.from({ length: 1_000 }, (_, index) => one(index)).join('')
    const { asked, insight } = await look(mail('a@stranger.example', 'x\r\n', many))
    expect(asked.filter((name) => name.includes('_domainkey')).length).toBe(10)
    expect(insight.authentication.filter(({ method }) => method === 'dkim').length).toBe(10)
  })

  test('of twelve that hold, the keys of ten are asked for', async () => {
    let raw = mail('a@good.example')
    for (let index = 0; index < 12; index++) {
      raw = await signed(raw, { domain: 'list.example', selector: `k${index}` })
    }
    const zone: Record<string, Zone[string]> = { ...ZONE }
    for (let index = 0; index < 12; index++) {
      zone[`k${index}._domainkey.list.example`] = { TXT: [key(RSA)] }
    }
    const { asked } = await look(raw, {}, {}, zone)
    expect(asked.filter((name) => name.includes('_domainkey')).length).toBe(10)
  })

  test('mail of our own people is not judged', async () => {
    const { rules, asked } = await look(mail('a@good.example'), { outbound: true })
    expect(rules).toEqual([])
    expect(asked).toEqual([])
  })
})

describe('authors', () => {
  for (const from of [
    'a@good.example, b@stranger.example',
    'b@stranger.example, a@good.example',
    'Team: a@good.example, b@stranger.example;',
    'a@good.example\0@stranger.example',
    '<b@stranger.example>, a@good.example\0@stranger.example',
    'b@stranger.example\r\nFrom: a@good.example',
    'a@good.example\r\nFrom : b@stranger.example',
  ]) {
    test(`each of them must be vouched for: ${JSON.stringify(from)}`, async () => {
      const raw = await signed(mail(from), { domain: 'stranger.example' })
      const zone = { ...ZONE, 's1._domainkey.stranger.example': { TXT: [key(RSA)] } }
      const { rules, insight } = await look(raw, {}, {}, zone)
      expect(rules).toContain('DMARC_REJECT')
      expect(insight.authenticated).toEqual([])
    })
  }

  test('who hides behind eight others is found', async () => {
    const crowd = Array.from({ length: 8 }, (_, index) => `x@d${index}.example`).join(', ')
    const { rules, score } = await look(mail(`${crowd}, a@good.example`))
    expect(rules).toContain('DMARC_REJECT')
    expect(score('FROM_SEVERAL')).toBe(8)
    const long = `${'x@stranger.example, '.repeat(500)}a@good.example`
    expect((await look(mail(long))).score('FROM_INVALID')).toBe(8)
  })

  test('of more authors than are looked at none is proven', async () => {
    const crowd = Array.from({ length: 12 }, (_, index) => `x@d${index}.good.example`)
    const proven = await look(await signed(mail(crowd.slice(0, 3).join(', '))))
    expect(proven.insight.authenticated).toHaveLength(3)
    expect((await look(await signed(mail(crowd.join(', '))))).insight.authenticated).toEqual([])
  })

  test('two From fields prove nothing, also where both could be true', async () => {
    const raw = await signed(mail('a@good.example\r\nFrom: b@good.example'))
    expect((await look(raw)).insight.authenticated).toEqual([])
  })

  test('our own domain from outside without proof is forged', async () => {
    const { score, findings } = await look(mail('boss@ours.example'))
    expect(score('OWN_DOMAIN_SPOOF')).toBe(8)
    expect(findings.find(({ rule }) => rule === 'OWN_DOMAIN_SPOOF')?.evidence).toContain(
      '203.0.113.66',
    )
  })

  test('a name below ours counts less: it may be of a service that nobody entered', async () => {
    expect((await look(mail('news@mail.ours.example'))).score('OWN_DOMAIN_SPOOF')).toBe(4)
    expect((await look(mail('news@notours.example'))).score('OWN_DOMAIN_SPOOF')).toBeUndefined()
  })

  test('from a server of ours it is not', async () => {
    const own = { clientIp: '198.51.100.1', sender: 'boss@ours.example' }
    expect((await look(mail('boss@ours.example'), own)).rules).toEqual(['SPF_PASS'])
  })
})

describe('name servers that fail', () => {
  test('a policy that nobody can read is unknown, not none', async () => {
    const { causes, rules } = await look(mail('a@lost.example'))
    expect(rules).toEqual([])
    expect(causes).toEqual(['the name servers failed, so lost.example may be forged or not'])
  })

  test('an SPF record that could have vouched for it leaves it unknown', async () => {
    const { causes } = await look(mail('a@vague.example'), { sender: 'a@vague.example' })
    expect(causes.length).toBe(1)
  })

  test('one that could not have is a finding beside the failure of DMARC', async () => {
    const { rules, causes } = await look(mail('a@good.example'), { sender: 'a@vague.example' })
    expect(causes).toEqual([])
    expect(rules).toEqual(['SPF_TEMPERROR', 'DMARC_REJECT'])
  })

  test('a domain that asks for nothing is not kept waiting', async () => {
    const { rules, causes } = await look(mail('a@mild.example'), { sender: 'a@mild.example' })
    expect(causes).toEqual([])
    expect(rules).toEqual(['SPF_TEMPERROR', 'DMARC_TEMPERROR'])
  })

  test('a key that does not come, of the only signature that would vouch, is unknown', async () => {
    const zone = { ...ZONE, 's1._domainkey.good.example': { TXT: 'timeout' } }
    const raw = await signed(mail('a@good.example'))
    expect((await look(raw, {}, {}, zone)).causes.length).toBe(1)
  })

  test('a selector that cannot be a name is no failure of the name servers', async () => {
    const [label, long] = ['x'.repeat(64), `${'x'.repeat(60)}.`.repeat(4)]
    for (const selector of [label, `a..b`, `${long}x`]) {
      const raw = await signed(mail('a@good.example'))
      const forged = Buffer.from(raw.toString().replace('s=s1;', `s=${selector};`))
      const { rules, causes } = await look(forged)
      expect(causes).toEqual([])
      expect(rules).toContain('DMARC_REJECT')
    }
  })

  test('authors who are no names are asked for nowhere', async () => {
    for (const from of ['a@[192.0.2.1]', 'a@b..c.example', `a@${'x'.repeat(64)}.example`]) {
      const { asked, causes } = await look(mail(from))
      expect(causes).toEqual([])
      expect(asked.filter((name) => name.includes('_dmarc'))).toEqual([])
    }
  })

  test('our own domain is never forged or not by chance', async () => {
    const zone = { ...ZONE, 'ours.example': { TXT: 'timeout' } }
    const { causes } = await look(
      mail('boss@ours.example'),
      { sender: 'boss@ours.example' },
      {},
      zone,
    )
    expect(causes.length).toBe(1)
  })
})

describe('forwarders', () => {
  /** As a list does it: the subject is changed, which breaks the signature; then it is sealed. */
  async function forwarded(results: string, sealer = 'list.example'): Promise<Buffer> {
    const raw = await signed(mail('a@good.example'))
    const changed = Buffer.from(raw.toString().replace('Subject: Hello', 'Subject: [list] Hello'))
    const { headers } = await createSeal(changed, {
      seal: {
        signingDomain: sealer,
        selector: 's1',
        privateKey: RSA.privateKey,
        authResults: `${sealer}; ${results}`,
        cv: 'none',
      },
    } as Parameters<typeof createSeal>[1])
    return Buffer.concat([Buffer.from(`${headers.join('\r\n')}\r\n`), changed])
  }
  const trusted = { 'sender.sealers': ['List.Example'] }
  const passed = 'dmarc=pass header.from=good.example'

  test('a sealer who is trusted and saw it pass vouches for it', async () => {
    const { rules, insight } = await look(await forwarded(passed), {}, trusted)
    expect(rules).toEqual(['DKIM_INVALID', 'ARC_VALID', 'ARC_TRUSTED'])
    expect(insight.authenticated).toEqual(['good.example'])
  })

  test('a sealer whom nobody trusts does not', async () => {
    expect((await look(await forwarded(passed))).rules).toContain('DMARC_REJECT')
  })

  for (const results of [
    'dmarc=fail header.from=good.example',
    'dmarc=pass header.from=other.example',
    'spf=pass smtp.mailfrom="x; dmarc=pass header.from=good.example ; x"',
    'spf=pass (; dmarc=pass header.from=good.example ; x)',
    'spf=pass smtp.mailfrom="\\"; dmarc=pass header.from=good.example ; x"',
    'dkim=pass header.d=stranger.example',
  ]) {
    test(`nor does one who did not see it pass: ${results}`, async () => {
      expect((await look(await forwarded(results), {}, trusted)).rules).toContain('DMARC_REJECT')
    })
  }

  test('a seal over another mail is none', async () => {
    const raw = Buffer.from((await forwarded(passed)).toString().replace('Hello.\r\n', 'Pay.\r\n'))
    expect((await look(raw, {}, trusted)).rules).toEqual([
      'DKIM_INVALID',
      'ARC_INVALID',
      'DMARC_REJECT',
    ])
  })

  test('a seal whose key does not come leaves it unknown', async () => {
    const zone = { ...ZONE, 's1._domainkey.list.example': { TXT: 'timeout' } }
    expect((await look(await forwarded(passed), {}, trusted, zone)).causes.length).toBe(1)
  })

  test('the key of a sealer whom nobody trusts keeps no refusal back', async () => {
    const zone = { ...ZONE, 's1._domainkey.list.example': { TXT: 'timeout' } }
    const { rules, causes } = await look(await forwarded(passed), {}, {}, zone)
    expect(causes).toEqual([])
    expect(rules).toEqual(['DKIM_INVALID', 'ARC_INVALID', 'DMARC_REJECT'])
  })
})

describe('what is told on', () => {
  test('the results, in our name', async () => {
    const raw = await signed(mail('a@good.example'))
    const { onward } = await look(raw, { clientIp: '192.0.2.1', sender: 'a@good.example' })
    expect(onward.fields.replace(/header\.b="?[\w+/]{8}"?/, 'header.b=…')).toBe(
      [
        'Authentication-Results: mx.ours.example;',
        '\tspf=pass smtp.mailfrom=good.example;',
        '\tspf=none smtp.helo=mx.stranger.example;',
        '\tdkim=pass header.d=good.example header.s=s1 header.b=…;',
        '\tdmarc=pass header.from=good.example policy.dmarc=reject',
        '',
      ].join('\r\n'),
    )
  })

  test('what nobody signed says so', async () => {
    const { onward } = await look(mail('a@stranger.example'), { greeting: 'x', sender: '' })
    expect(onward.fields).toBe(
      'Authentication-Results: mx.ours.example;\r\n\tdkim=none;\r\n\tdmarc=none header.from=stranger.example\r\n',
    )
  })

  for (const written of [
    'mx.ours.example; dmarc=pass',
    'MX.Ours.Example; dmarc=pass',
    ' (so says) mx.ours.example 1; dmarc=pass',
    '\r\n\tmx.ours.example;\r\n\tdmarc=pass',
    '"mx.ours.example"; dmarc=pass',
    '"ours\\.example"; dmarc=pass',
    'mail.ours.example; dmarc=pass',
    'ours.example',
    'mx.ours.example.; dmarc=pass',
    'mx.ours.example/1; dmarc=pass',
    '(mx.ours.example; dmarc=pass',
  ]) {
    test(`results that are not ours are cut off: ${JSON.stringify(written)}`, async () => {
      for (const name of ['Authentication-Results', 'authentication-RESULTS ']) {
        const raw = mail(
          'a@stranger.example',
          'x\r\n',
          `X-One: 1\r\n${name}: ${written}\r\nX-Two: 2\r\n`,
        )
        const { onward, rules } = await look(raw)
        expect(rules).toContain('FORGED_RESULTS')
        const rest = without(raw, onward.cuts).toString()
        expect(rest).toBe(
          mail('a@stranger.example', 'x\r\n', 'X-One: 1\r\nX-Two: 2\r\n').toString(),
        )
      }
    })
  }

  test('results of others stay', async () => {
    const raw = mail(
      'a@stranger.example',
      'x\r\n',
      'Authentication-Results: mx.other.example (for mx.ours.example); dmarc=pass\r\n',
    )
    expect((await look(raw)).onward.cuts).toEqual([])
  })

  test('forged ones are cut off also where the name servers fail', async () => {
    const raw = mail(
      'a@lost.example',
      'x\r\n',
      'Authentication-Results: mx.ours.example; dmarc=pass\r\n',
    )
    expect((await look(raw)).onward.cuts.length).toBe(1)
  })
})

describe('questions', () => {
  test('a usual mail needs two rounds, and one of three levels of SPF five', async () => {
    const raw = await signed(mail('a@good.example'))
    const usual = await look(raw, { clientIp: '192.0.2.1', sender: 'a@good.example' })
    expect(usual.rounds).toBe(2)
    const deep = await look(mail('a@deep.example'), {
      clientIp: '192.0.2.1',
      sender: 'a@deep.example',
    })
    expect(deep.rules).toContain('SPF_PASS')
    expect(deep.rounds).toBe(5)
  })

  test('the same answers in another order give the same findings', async () => {
    const many: Zone = {
      ...ZONE,
      'good.example': { TXT: ['v=spf1 mx -all', 'other'], MX: ['10 b.example', '5 a.example'] },
    }
    const turned: Zone = {
      ...ZONE,
      'good.example': { TXT: ['other', 'v=spf1 mx -all'], MX: ['5 a.example', '10 b.example'] },
    }
    const session = { sender: 'a@good.example' }
    const one = await look(mail('a@good.example'), session, {}, many)
    const two = await look(mail('a@good.example'), session, {}, turned)
    expect(two.findings).toEqual(one.findings)
    const raw = await signed(mail('a@good.example'))
    const keys = [key(RSA), 'v=DKIM1; p=']
    const found = [keys, keys.toReversed()].map((records) =>
      look(raw, session, {}, { ...ZONE, 's1._domainkey.good.example': { TXT: records } }),
    )
    const [first, second] = await Promise.all(found)
    expect(second?.findings).toEqual(first?.findings ?? [])
  })
})

describe('a client that only relays', () => {
  const relayed = { sender: 'a@strict.example', greeting: 'mx.ours.example' }

  test.each([
    '10.1.2.3',
    '127.0.0.1',
    '169.254.7.7',
    '172.31.255.255',
    '192.168.0.1',
    '::ffff:10.1.2.3',
    '::1',
    'fd00::1',
    'fe80::1',
  ])('at %s is not looked up in SPF, and why stands with the results', async (clientIp) => {
    const { rules, insight, asked, onward } = await look(mail('a@strict.example'), {
      ...relayed,
      clientIp,
    })
    expect(rules).toEqual(['DMARC_QUARANTINE'])
    expect(asked).not.toContain('TXT strict.example')
    expect(asked).not.toContain('TXT mx.ours.example')
    expect(insight.authentication[0]).toMatchObject({ method: 'spf', result: 'none' })
    expect(insight.authentication[0]?.evidence).toMatch(
      /^Whether strict\.example names \S+ as its server was not asked: the client is in \S+, a network of relays \(sender\.relays\), which are servers of nobody else\.$/,
    )
    expect(onward.fields).toContain('spf=none smtp.mailfrom=strict.example')
  })

  test.each([
    '11.0.0.1',
    '172.15.255.255',
    '172.32.0.1',
    '192.169.0.1',
    '126.0.0.1',
    'fec0::1',
    '2001:db8::1',
  ])('is none at %s', async (clientIp) => {
    const { rules } = await look(mail('a@strict.example'), { ...relayed, clientIp })
    expect(rules).toEqual(['SPF_FAIL', 'DMARC_QUARANTINE'])
  })

  test('is one of the setting: a second MX, and no private network when there is none', async () => {
    const given = { ...relayed, clientIp: '203.0.113.66' }
    const settings = { 'sender.relays': ['203.0.113.0/24'] }
    const raw = mail('a@strict.example')
    expect((await look(raw, given, settings)).rules).toEqual(['DMARC_QUARANTINE'])
    const inside = { ...given, clientIp: '10.1.2.3' }
    expect((await look(raw, inside, settings)).rules).toEqual(['SPF_FAIL', 'DMARC_QUARANTINE'])
    expect((await look(raw, inside)).rules).toEqual(['DMARC_QUARANTINE'])
  })

  test('brings signatures that count, and its greeting is not looked up either', async () => {
    const raw = await signed(mail('a@good.example'))
    const bounce = { clientIp: '10.1.2.3', sender: '', greeting: 'strict.example' }
    const { rules, asked, insight } = await look(raw, bounce)
    expect(rules).toEqual(['DKIM_VALID', 'DMARC_PASS'])
    expect(insight.authenticated).toEqual(['good.example'])
    expect(asked).not.toContain('TXT strict.example')
  })

  test('may not write in our name, and nothing is said of servers', async () => {
    const { findings } = await look(mail('boss@ours.example'), {
      clientIp: '10.1.2.3',
      sender: 'boss@ours.example',
    })
    expect(findings.find(({ rule }) => rule === 'OWN_DOMAIN_SPOOF')?.evidence).toBe(
      'The author is said to be of ours.example, a domain of ours, but no signature of it holds, and 10.1.2.3 only relays (sender.relays).',
    )
  })
})
