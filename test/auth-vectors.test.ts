/**
 * Mails that others signed, and what others say of them: the examples of RFC 6376 and RFC 8463, and
 * the functional tests of rspamd with the zone that they state. Where rspamd and an RFC differ, the
 * test names the text that we follow.
 */
import { describe, expect, test } from 'bun:test'
import { join } from 'node:path'
import type { SessionFacts } from '../src/mail/inspect/look.ts'
import { lookIn, type Zone } from './zone.ts'

const DIRECTORY = join(import.meta.dir, 'mail')

const RFC6376_KEY =
  'v=DKIM1; p=MIGfMA0GCSqGSIb3DQEBAQUAA4GNADCBiQKBgQDwIRP/UC3SBsEmGqZ9ZJW3/DkMoGeLnQg1fWn7/zYtIxN2SnFCjxOCKG9v3b4jYfcTNh5ijSsq631uBItLa7od+v/RtdC2UzJ1lWT947qR+Rcac2gbto/NMqJ0fzfVjH4OuKhitdY9tf6mcwGjaNBcWToIMmPSPDdQPNUYckcQ2QIDAQAB'

/** RFC 6376 appendix A.2 and A.3. */
const RFC6376_MAIL = `DKIM-Signature: v=1; a=rsa-sha256; s=brisbane; d=example.com;
      c=simple/simple; q=dns/txt; i=joe@football.example.com;
      h=Received : From : To : Subject : Date : Message-ID;
      bh=2jUSOH9NhtVGCQWNr9BrIAPreKQjO6Sn7XIkfJVOzv8=;
      b=AuUoFEfDxTDkHlLXSZEpZj79LICEps6eda7W3deTVFOk4yAUoqOB
      4nujc7YopdG5dWLSdNg6xNAZpOPr+kHxt1IrE+NahM6L/LbvaHut
      KVdkLLkpVaVVQPzeRDI009SO2Il5Lu7rDNH6mZckBdrIx0orEtZV
      4bmp/YzhwvcubU4=;
Received: from client1.football.example.com  [192.0.2.1]
      by submitserver.example.com with SUBMISSION;
      Fri, 11 Jul 2003 21:01:54 -0700 (PDT)
From: Joe SixPack <joe@football.example.com>
To: Suzie Q <suzie@shopping.example.net>
Subject: Is dinner ready?
Date: Fri, 11 Jul 2003 21:00:37 -0700 (PDT)
Message-ID: <20030712040037.46341.5F8J@football.example.com>

Hi.

We lost the game. Are you hungry yet?

Joe.
`

const RSA = 'v=DKIM1; k=rsa; p=MIGfMA0GCSqGSIb3DQEBAQUAA4GNADCBiQKBgQ'

/** What the functional tests of rspamd let their name server say. */
const ZONE: Zone = {
  'brisbane._domainkey.example.com': { TXT: [RFC6376_KEY] },
  'brisbane._domainkey.football.example.com': {
    TXT: ['v=DKIM1; k=ed25519; p=11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo='],
  },
  'test._domainkey.football.example.com': {
    TXT: [
      `${RSA}DkHlOQoBTzWRiGs5V6NpP3idY6Wk08a5qhdR6wy5bdOKb2jLQiY/J16JYi0Qvx/byYzCNb3W91y3FutACDfzwQ/BC/e/8uBsCR+yz1Lxj+PL6lHvqMKrM3rG4hstT5QjvHO9PzoxZyVYLzBfO2EeC3Ip3G+2kryOTIKT+l/K4w3QIDAQAB`,
    ],
  },
  'dkim._domainkey.rspamd.com': {
    TXT: [
      `${RSA}Cd/XhZBEGGAss48lEuMmwZv9lOFf6FTllBiQ3sPhdTpDdIPaW9TInW7iYnYD/bXHeVxYAyD/sKhYk6+qGBRu10rEi+iyPvLCIED+Boq0tEQosuKuV6Fjoomb+QhZY9KdjyZTjsrFPZ+wCkUY/30uTmpX2SwSqyxxlK0pUIsRgMAQIDAQAB`,
    ],
  },
  'dkim._domainkey.highsecure.ru': {
    TXT: [
      'p=MIGfMA0GCSqGSIb3DQEBAQUAA4GNADCBiQKBgQDK4ZQYky30GH0Ak9OQ1fv3IdFNbpOtpa4S/PR20ZLgPXfd/FCA//ztUmu7kHlELI+/+4f8W+xX0oZlOc/cFxhopRjXZMlSsQqmWOZ40/GxWFBtcqafKu78FCqO7URqZUmMCM5Jlp4zt/yzH3dbYNG3i5PVlB5QtQnZvY+dvBL3dwIDAQAB',
    ],
  },
  'testdkim._domainkey.mom.za.org': {
    TXT: [
      `${RSA}C3v4VPE1QMHUzsMRbC8VzXNq82mDjiv9Gi1NB/YYC+vIYZT+sE/Uxnr0Clk8C2jgzEr3jcxgQEWZfMtEEg/EfEJvh4SrXWv9c0gw1EEfxKxX9i+r8yBQtc/EWospWVDkhF2lAvQAK1lV1ZiU7psJ6fh1CI39uZyWdAktZzWLf0zQIDAQAB`,
    ],
  },
  'testdkim1._domainkey.yoni.za.org': { TXT: ['v=DKIM1; k=rsa; p=BARF'] },
  'testdkim1._domainkey.dnssec-failed.org': { TXT: 'timeout' },
  'revoked._domainkey.revokedkey.za.org': { TXT: ['v=DKIM1; k=rsa; p='] },
  '_dmarc.cacophony.za.org': { TXT: ['v=DMARC1; p=none; sp=reject'] },
  '_dmarc.reject.cacophony.za.org': {
    TXT: ['v=DMARC1; p=reject; rua=mailto:dmarc-reports@rspamd.com'],
  },
  '_dmarc.my.mom.za.org': { TXT: ['v=DMARC1; p=reject'] },
  '_dmarc.yoni.za.org': { TXT: ['v=DMARC1; p=reject; sp=none;'] },
  '_dmarc.zero_pct.com': { TXT: ['v=DMARC1; p=reject; sp=quarantine; pct=0'] },
  '_dmarc.dnssec-failed.org': { TXT: 'timeout' },
  'www.dnssec-failed.org': { TXT: 'timeout', MX: 'timeout', A: 'timeout' },
  'example.net': { TXT: ['v=spf1 -all'] },
  'plusall.com': { TXT: ['v=spf1 +all'] },
  'mom.za.org': { TXT: ['v=spf1 ip4:37.48.67.26 -all'] },
  'spf.cacophony.za.org': { TXT: ['v=spf1 ip4:8.8.4.4 -all'] },
  'twospf.org.org.za': { TXT: ['v=spf1 ip4:8.8.8.8 -all', 'v=spf1 ip4:9.9.9.9 -all'] },
  'onespf.org.org.za': { TXT: ['some-vendor-verification=abcdef', 'v=spf1 ip4:8.8.8.8 -all'] },
  'mixedcasespf.org.org.za': { TXT: ['V=SPF1 ip4:8.8.8.8 -all'] },
  'spf10.org.org.za': { TXT: ['v=spf10 ip4:9.9.9.9 -all', 'v=spf1 ip4:8.8.8.8 -all'] },
  'fail1.org.org.za': { TXT: ['v=spf1 redirect=www.dnssec-failed.org'] },
  'fail2.org.org.za': { TXT: ['v=spf1 ip4:8.8.4.4 include:www.dnssec-failed.org -all'] },
  'fail3.org.org.za': { TXT: ['v=spf1 ip4:8.8.8.8 include:total.barf -all'] },
  'fail4.org.org.za': { TXT: ['v=spf1 redirect=asdfsfewewrredfs'] },
  'fail5.org.org.za': { TXT: ['v=spf1 OMGBARF'] },
  'fail6.org.org.za': { TXT: ['v=spf1 ip4:8.8.8.8 mx -all'] },
  'fail7.org.org.za': { TXT: ['v=spf1 ip4:8.8.8.8 a -all'] },
  'fail8.org.org.za': { TXT: ['v=spf1 ip4:8.8.8.8 a:www.dnssec-failed.org -all'] },
  'fail9.org.org.za': { TXT: ['v=spf1 ip4:8.8.8.8 mx:www.dnssec-failed.org -all'] },
  'fail10.org.org.za': { TXT: ['v=spf1 redirect=fail5.org.org.za'] },
  'fail11.org.org.za': { TXT: ['v=sPF1 ip4:8.8.8.8 -all'] },
  'pass1.org.org.za': { TXT: ['v=spf1 include:pass2.org.org.za -all'] },
  'pass2.org.org.za': { TXT: ['v=spf1 ip4:8.8.8.8 -all'] },
  'exists.org.org.za': {
    TXT: ['v=spf1 include:inc.exists.org.org.za exists:probe.exists.org.org.za -all'],
  },
  'noexists.org.org.za': {
    TXT: ['v=spf1 include:inc.exists.org.org.za exists:absent.exists.org.org.za -all'],
  },
  'inc.exists.org.org.za': { TXT: ['v=spf1 ip4:192.0.2.40 -all'] },
  'probe.exists.org.org.za': { A: ['127.0.0.2'] },
  'crazyspf.cacophony.za.org': {
    TXT: [
      'v=spf1 ptr:cacophony.za.org ptr:rspamd.com ptr:yahoo.com ptr:yahoo.net ptr:highsecure.ru -all',
    ],
  },
  '95.142.99.88.in-addr.arpa': { PTR: ['mail.highsecure.ru'] },
  '182.216.85.209.in-addr.arpa': { PTR: ['mail-qt0-f182.google.com'] },
  'mail.highsecure.ru': { A: ['88.99.142.95'] },
  'manymx.org.org.za': {
    TXT: ['v=spf1 mx -all'],
    MX: Array.from({ length: 12 }, (_, index) => `10 mx${index + 1}.manymx.org.org.za`),
  },
  'fewmx.org.org.za': {
    TXT: ['v=spf1 mx -all'],
    MX: ['10 mx1.fewmx.org.org.za', '20 mx2.fewmx.org.org.za'],
  },
  'mx1.fewmx.org.org.za': { A: ['8.8.8.8'] },
  'mx2.fewmx.org.org.za': { A: ['192.0.2.20'] },
}

async function look(raw: Uint8Array | string, session: Partial<SessionFacts> = {}) {
  const bytes =
    typeof raw === 'string'
      ? Buffer.from(
          (await Bun.file(join(DIRECTORY, `rspamd__${raw}`)).text()).replace(/\r?\n/g, '\r\n'),
        )
      : raw
  const seen = await lookIn(ZONE, bytes, { session, inspectors: ['sender'] })
  const results = (method: string): readonly string[] =>
    seen.insight.authentication
      .filter((each) => each.method === method)
      .map(({ result, about }) => (about === '' ? result : `${result} ${about}`))
  return { ...seen, rules: seen.findings.map(({ rule }) => rule), results }
}

describe('DKIM', () => {
  test('the example of RFC 6376 appendix A passes', async () => {
    const { results } = await look(Buffer.from(RFC6376_MAIL.replaceAll('\n', '\r\n')))
    expect(results('dkim')).toEqual(['pass example.com'])
  })

  test('a changed octet of its body, or of a signed field, fails', async () => {
    for (const [from, to] of [
      ['hungry', 'Hungry'],
      ['dinner', 'Dinner'],
    ] as const) {
      const { results } = await look(
        Buffer.from(RFC6376_MAIL.replace(from, to).replaceAll('\n', '\r\n')),
      )
      expect(results('dkim')).toEqual(['fail example.com'])
    }
  })

  test('both signatures of RFC 8463 appendix A pass: Ed25519 and RSA', async () => {
    const { results } = await look('ed25519.eml')
    expect(results('dkim')).toEqual(['pass football.example.com', 'pass football.example.com'])
  })

  test('a real signature under a chain of real seals passes', async () => {
    const { results } = await look('dmarc__good_dkim_rspamd.eml')
    expect(results('dkim')).toEqual(['pass rspamd.com'])
  })

  for (const [file, result, words] of [
    ['dmarc__bad_dkim1.eml', 'neutral yoni.za.org', 'of no use'],
    ['dkim_revoked_key.eml', 'fail revokedkey.za.org', 'body was changed'],
    ['dmarc__bad_dkim_highsecure.eml', 'fail highsecure.ru', 'body was changed'],
    ['dkim_huge_hlist.eml', 'fail example.com', 'of no use'],
    ['dkim_large_hlist.eml', 'fail asdf.rspamd.tk', 'of no use'],
  ] as const) {
    test(`${file}: a signature of no use`, async () => {
      const { results, findings } = await look(file)
      expect(results('dkim')).toEqual([result])
      expect(findings.find(({ rule }) => rule === 'DKIM_INVALID')?.evidence).toContain(words)
    })
  }
})

describe('DMARC', () => {
  for (const [file, session, rule] of [
    ['dmarc__fail_none1.eml', {}, null],
    ['dmarc__fail_reject.eml', {}, 'DMARC_REJECT'],
    ['dmarc__subdomain_fail_none.eml', {}, 'DMARC_NONE'],
    ['dmarc__subdomain_fail_reject.eml', {}, 'DMARC_REJECT'],
    ['dmarc__onsubdomain_fail.eml', {}, 'DMARC_REJECT'],
    ['dmarc__onsubdomain_pass_relaxed.eml', {}, 'DMARC_PASS'],
    [
      'dmarc__onsubdomain_fail.eml',
      { clientIp: '37.48.67.26', sender: 'foo@mom.za.org' },
      'DMARC_PASS',
    ],
    ['dmarc__pct_none.eml', {}, 'DMARC_QUARANTINE'],
    ['dmarc__bad_dkim1.eml', { clientIp: '8.8.8.8', sender: 'x@fail2.org.org.za' }, 'DMARC_NONE'],
  ] as const) {
    test(`${file} ${JSON.stringify(session)}: ${rule}`, async () => {
      const { rules, causes } = await look(file, session)
      expect(causes).toEqual([])
      expect(rules.filter((each) => each.startsWith('DMARC'))).toEqual(rule === null ? [] : [rule])
    })
  }
})

describe('SPF', () => {
  for (const [domain, clientIp, result] of [
    ['fail3.org.org.za', '8.8.8.8', 'pass'],
    ['fail2.org.org.za', '8.8.8.8', 'temperror'],
    ['fail2.org.org.za', '8.8.4.4', 'pass'],
    ['za', '8.8.8.8', 'none'],
    ['co.za', '8.8.8.8', 'none'],
    ['fail4.org.org.za', '8.8.8.8', 'permerror'],
    ['fail10.org.org.za', '8.8.8.8', 'permerror'],
    ['fail1.org.org.za', '8.8.8.8', 'temperror'],
    ['fail5.org.org.za', '8.8.8.8', 'permerror'],
    ['example.net', '8.8.8.8', 'fail'],
    ['fail6.org.org.za', '1.2.3.4', 'fail'],
    ['fail7.org.org.za', '1.2.3.4', 'fail'],
    ['fail8.org.org.za', '1.2.3.4', 'temperror'],
    ['fail9.org.org.za', '1.2.3.4', 'temperror'],
    ['www.dnssec-failed.org', '1.2.3.4', 'temperror'],
    ['pass1.org.org.za', '8.8.8.8', 'pass'],
    ['crazyspf.cacophony.za.org', '88.99.142.95', 'pass'],
    ['crazyspf.cacophony.za.org', '209.85.216.182', 'fail'],
    ['fail11.org.org.za', '8.8.8.8', 'pass'],
    ['plusall.com', '8.8.8.8', 'pass'],
    ['twospf.org.org.za', '8.8.8.8', 'permerror'],
    ['onespf.org.org.za', '8.8.8.8', 'pass'],
    ['mixedcasespf.org.org.za', '8.8.8.8', 'pass'],
    ['spf10.org.org.za', '8.8.8.8', 'pass'],
    ['exists.org.org.za', '8.8.8.8', 'pass'],
    ['noexists.org.org.za', '8.8.8.8', 'fail'],
    ['fewmx.org.org.za', '8.8.8.8', 'pass'],
    ['manymx.org.org.za', '192.0.2.250', 'permerror'],
    // rspamd says fail. Its five ptr terms find no name; RFC 7208 section 4.6.4: "SPF implementations
    // SHOULD limit "void lookups" to two", and beyond it "permerror".
    ['crazyspf.cacophony.za.org', '128.66.0.1', 'permerror'],
    // rspamd passes over an include without a record; RFC 7208 section 5.2: "None | return permerror".
    ['fail3.org.org.za', '37.48.67.26', 'permerror'],
  ] as const) {
    test(`${domain} from ${clientIp}: ${result}`, async () => {
      const { results } = await look('dmarc__bad_dkim1.eml', { clientIp, sender: `x@${domain}` })
      expect(results('spf')[0]).toBe(`${result} ${domain}`)
    })
  }

  test('a record that lets everybody send is told', async () => {
    const { rules } = await look('ed25519.eml', { sender: 'x@plusall.com' })
    expect(rules).toContain('SPF_ALL')
  })
})

describe('ARC', () => {
  test('arcbad.eml: a seal that does not hold', async () => {
    const { rules, results } = await look('arcbad.eml')
    expect(rules).toContain('ARC_INVALID')
    expect(results('arc')).toEqual(['fail'])
  })
})
