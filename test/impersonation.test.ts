/** Who pretends to be somebody: 400 forged mails of every known way, and honest ones beside them. */
import { describe, expect, test } from 'bun:test'
import { domainToASCII } from 'node:url'
import { initialSettings } from '../src/config/schema.ts'
import { capScores } from '../src/mail/inspect/answers.ts'
import type { InspectConfig } from '../src/mail/inspect/look.ts'
import type { Finding } from '../src/message/verdict.ts'
import { labelledMail } from './bench/detection/set.ts'
import { lookAt } from './look.ts'

const CONFIG: Partial<InspectConfig> = {
  domains: ['northwind.example', 'contoso-bank.com', 'fabrikam.de', 'fabrikam-shop.de'],
  settings: {
    ...initialSettings(),
    'sender.people': [
      'Ada Lovelace, ada@northwind.example, ada.lovelace@home.example',
      'Grace Brewster Hopper, grace@contoso-bank.com',
      'Jürgen Müller, juergen@fabrikam.de',
      'Cher, cher@fabrikam.de',
    ],
    'sender.lookalikes': ['paymentsclearing.com', 'adventureworks.org'],
  },
}

/** What counts as caught: a finding of these that would show, alone, in a score. */
const RULES =
  /^(?:PERSON_SPOOF|FROM_|LOOKALIKE_DOMAIN|REPLYTO_OUTSIDE|FREEMAIL_REPLYTO|OWN_DOMAIN_SPOOF)/

function mail(fields: Readonly<Record<string, string>>): Buffer {
  const all = {
    Date: 'Sun, 22 Nov 2026 10:00:00 +0000',
    'Message-ID': '<1@x>',
    Subject: 'Invoice',
    ...fields,
  }
  const header = Object.entries(all).map(([name, value]) => `${name}: ${value}\r\n`)
  return Buffer.from(`${header.join('')}\r\nPlease pay today.\r\n`)
}

function findings(raw: Buffer, sender = 'x@stranger.example'): readonly Finding[] {
  const found: Finding[] = []
  lookAt(raw, { session: { sender }, config: CONFIG, inspectors: ['impersonation'] }, (answer) => {
    if ('findings' in answer) found.push(...answer.findings)
    if ('cause' in answer) throw new Error(answer.cause)
  })
  return found
}

const isCaught = (raw: Buffer): boolean =>
  findings(raw).some(({ rule, score }) => RULES.test(rule) && score >= 2)

/** Ways in which a name is forged, each from the name as it is. */
const NAME_WAYS: Readonly<Record<string, (name: string) => string>> = {
  plain: (name) => name,
  'lower case': (name) => name.toLowerCase(),
  'upper case': (name) => name.toUpperCase(),
  quoted: (name) => `"${name}"`,
  'family name first': (name) => `"${name.split(' ').toReversed().join(', ')}"`,
  'other order': (name) => name.split(' ').toReversed().join(' '),
  'a title': (name) => `"Dr. ${name}"`,
  'an office': (name) => `"${name} (CEO)"`,
  'a company': (name) => `"${name} | Northwind"`,
  'an initial': (name) => `"${name[0]}. ${name.split(' ').slice(1).join(' ')}"`,
  'letters of Cyrillic': (name) =>
    encoded(name.replace(/a/g, 'а').replace(/e/g, 'е').replace(/o/g, 'о')),
  'digits for letters': (name) => `"${name.replace(/l/g, '1').replace(/o/g, '0')}"`,
  'full width': (name) =>
    encoded(name.replace(/[A-Za-z]/g, (char) => String.fromCharCode(char.charCodeAt(0) + 0xfee0))),
  'zero width': (name) => encoded([...name].join('\u200b')),
  'soft hyphens': (name) => encoded(name.replace(/(..)/g, '$1\u00ad')),
  dots: (name) => `"${name.replaceAll(' ', '.')}"`,
  underscores: (name) => `"${name.replaceAll(' ', '_')}"`,
  'no blank': (name) => `"${name.replaceAll(' ', '')}"`,
  'a letter less': (name) => `"${name.slice(0, -2)}${name.slice(-1)}"`,
  'a letter twice': (name) => `"${name}${name.slice(-1)}"`,
  'two swapped': (name) => `"${name.slice(0, -3)}${name.at(-2)}${name.at(-3)}${name.at(-1)}"`,
  'spaced letters': (name) => `"${[...name.replaceAll(' ', '')].join(' ')}"`,
  'an encoded word': (name) => encoded(name),
  'a Q word': (name) =>
    `=?utf-8?q?${[...Buffer.from(name)].map((byte) => `=${byte.toString(16).padStart(2, '0')}`).join('')}?=`,
  'a comment': (name) => `COMMENT${name}`,
}

function encoded(text: string): string {
  return `=?UTF-8?B?${Buffer.from(text).toString('base64')}?=`
}

function fromField(written: string, address: string): string {
  return written.startsWith('COMMENT')
    ? `${address} (${written.slice(7)})`
    : `${written} <${address}>`
}

const NAMES = ['Ada Lovelace', 'Grace Brewster Hopper', 'Jurgen Muller']
const STRANGERS = ['office.mail77@gmail.com', 'ceo@stranger.example']

/** Ways in which a domain is forged. */
const DOMAIN_WAYS: Readonly<Record<string, (domain: string) => string>> = {
  'a letter less': (domain) => domain.replace(/^(...)./, '$1'),
  'a letter more': (domain) => domain.replace(/^(...)(.)/, '$1$2$2'),
  'another letter': (domain) => domain.replace(/^(...)./, '$1q'),
  'two swapped': (domain) => domain.replace(/^(..)(.)(.)/, '$1$3$2'),
  'rn for m, l for i': (domain) => domain.replace('m', 'rn').replace('i', 'l').replace('o', '0'),
  'Cyrillic o or a': (domain) =>
    domainToASCII(domain.replace(/[oa]/, (char) => (char === 'o' ? 'о' : 'а'))),
  'an accent': (domain) => domainToASCII(domain.replace(/[oae]/, (char) => `${char}\u0301`)),
  'another ending': (domain) => domain.replace(/\.[a-z]+$/, '.co'),
  'an ending of a country': (domain) => domain.replace(/\.[a-z]+$/, '.com.br'),
  'a word behind': (domain) => domain.replace('.', '-billing.'),
  'a word in front': (domain) => `secure-${domain}`,
  'a word without dash': (domain) => domain.replace('.', 'support.'),
  'a word joined in front': (domain) => `my${domain}`,
  'the ending as a word': (domain) => `${domain.replace('.', '-')}.net`,
  'in front of another': (domain) => `${domain}.login-check.net`,
  'with a dash': (domain) => domain.replace(/^(.{4})-?/, '$1-'),
}
const DOMAINS = [
  'northwind.example',
  'contoso-bank.com',
  'fabrikam.de',
  'paymentsclearing.com',
  'adventureworks.org',
]

type Forged = { readonly way: string; readonly raw: Buffer }

function forgeries(): readonly Forged[] {
  const forged: Forged[] = []
  for (const name of NAMES) {
    for (const [way, forge] of Object.entries(NAME_WAYS)) {
      for (const address of STRANGERS) {
        forged.push({
          way: `${name}: ${way}`,
          raw: mail({ From: fromField(forge(name), address) }),
        })
      }
    }
  }
  for (const domain of DOMAINS) {
    for (const [way, forge] of Object.entries(DOMAIN_WAYS)) {
      const other = forge(domain)
      forged.push({
        way: `${domain}: ${way}: ${other}`,
        raw: mail({ From: `Billing <billing@${other}>` }),
      })
      forged.push({
        way: `answers to ${domain}: ${way}`,
        raw: mail({ From: 'Billing <billing@stranger.example>', 'Reply-To': `billing@${other}` }),
      })
    }
    for (const [index, field] of [
      `"billing@${domain}" <x@evil.example>`,
      `${encoded(`billing@${domain}`)} <x@evil.example>`,
      `"Billing <billing@${domain}>" <x@evil.example>`,
      `x@evil.example (billing@${domain})`,
      `billing@${domain} <x@evil.example>`,
      `"billing＠${domain}" <x@evil.example>`,
      `<x@evil.example>, "Billing" <billing@${domain}>`,
      `billing@${domain}\0@evil.example`,
      `Staff: billing@${domain};`,
    ].entries()) {
      forged.push({ way: `From ${index} of ${domain}: ${field}`, raw: mail({ From: field }) })
    }
    forged.push({
      way: `answers of ${domain} go to a free provider`,
      raw: mail({ From: `Billing <billing@${domain}>`, 'Reply-To': 'billing.dept@gmail.com' }),
    })
  }
  return forged
}

describe('impersonation', () => {
  // Nine in ten is what is asked for; these were all caught, and one that is not is a loss.
  test('of over 300 forged mails none is missed', () => {
    const all = forgeries()
    expect(all.length).toBeGreaterThanOrEqual(300)
    expect(all.filter(({ raw }) => !isCaught(raw)).map(({ way }) => way)).toEqual([])
  })

  for (const from of [
    'Ada Lovelace <ada@northwind.example>',
    '"Lovelace, Ada" <ada.lovelace@home.example>',
    'Ada Miller <ada.miller@customer.example>',
    'Adam Loveless <adam@customer.example>',
    'Northwind Traders <news@north.example>',
    'Wind & North <info@windnorth.example>',
    'Example Bank <info@othbank.com>',
    'Jürgen Klein <j.klein@web.de>',
    '"info@shop.example" <bounce@shop.example>',
    '"ada@list.example via Announce" <announce@lists.example>',
    'Fabrik Amsterdam <post@fabrikamsterdam.nl>',
    'Contoso <mail@mail.contoso-bank.com>',
    'Shop <news@fabrikam-shop.de>',
    'Ada Lovelace <a.lovelace@contoso-bank.com>',
    'Cher Smith <cher@smith.example>',
    'Cher <cher@fabrikam.de>',
    '=?utf-8?q?J=C3=B6rg_M=C3=BCller?= <joerg@firma.example>',
    'Support <support@support.example>',
  ]) {
    test(`an honest author is not: ${from}`, () => {
      expect(findings(mail({ From: from })).filter(({ score }) => score >= 1)).toEqual([])
    })
  }

  test('a list that writes the name of a person, and lets answers go there, is not held for it', () => {
    const from = '"Ada Lovelace via Dev" <dev@lists.stranger.example>'
    const held = findings(mail({ From: from }))
    expect(held.find(({ rule }) => rule === 'PERSON_SPOOF')?.score).toBe(8)
    const list = findings(mail({ From: from, 'Reply-To': 'Ada <ada@northwind.example>' }))
    expect(list.find(({ rule }) => rule === 'PERSON_SPOOF')?.score).toBe(2)
  })

  test('all of it together holds a mail and does not refuse it', () => {
    const all = findings(
      mail({
        From: '"Ada Lovelace ada@northwind.example" <ada@northwind-billing.com>',
        'Reply-To': 'Ada Lovelace <a@gmail.com>',
      }),
    )
    expect(all.reduce((sum, { score }) => sum + score, 0)).toBeGreaterThan(15)
    expect(capScores(all).reduce((sum, { score }) => sum + score, 0)).toBe(12)
  })

  test.each([
    ['LovelaceAda', 'Ada Lovelace'],
    [encoded([...'Ada Lovelace'].join('\u200b')), 'Ada Lovelace'],
    [encoded('Ada Love\u00adlace'), 'Ada Lovelace'],
    ['Cher', 'Cher'],
  ])('a name is found as it is read: %s', (written, name) => {
    const found = findings(mail({ From: `${written} <x@stranger.example>` }))
    const evidence = found.find(({ rule }) => rule === 'PERSON_SPOOF')?.evidence
    expect(evidence).toContain(`the name of ${name}`)
  })

  test('a list lets answers go where it likes', () => {
    const fields = { From: 'News <news@shop.example>', 'Reply-To': 'shop.news@gmail.com' }
    expect(findings(mail(fields)).map(({ rule }) => rule)).toEqual(['FREEMAIL_REPLYTO'])
    expect(findings(mail({ ...fields, 'List-Id': '<news.shop.example>' }))).toEqual([])
  })

  test('of very many domains of ours only those count that were named', () => {
    const domains = Array.from({ length: 400 }, (_, index) => `customer${index}.example`)
    const config = { ...CONFIG, domains }
    const rules = (from: string): readonly string[] => {
      const found: Finding[] = []
      lookAt(mail({ From: from }), { config, inspectors: ['impersonation'] }, (answer) => {
        if ('findings' in answer) found.push(...answer.findings)
      })
      return found.map(({ rule }) => rule)
    }
    expect(rules('a@customer-40.example')).toEqual([])
    expect(rules('a@paymentsc1earing.com')).toEqual(['LOOKALIKE_DOMAIN'])
  })

  test('our own people may write from inside', () => {
    const found: Finding[] = []
    const raw = mail({ From: 'Ada Lovelace <ada@gmail.com>' })
    lookAt(
      raw,
      { session: { outbound: true }, config: CONFIG, inspectors: ['impersonation'] },
      (answer) => {
        if ('findings' in answer) found.push(...answer.findings)
      },
    )
    expect(found).toEqual([])
  })
})

test('of 4,150 real honest mails at most one in a hundred is flagged', () => {
  const ham = labelledMail().filter(({ isSpam }) => !isSpam)
  const flagged = ham.filter(({ raw }) =>
    findings(raw, '').some(({ rule, score }) => RULES.test(rule) && score >= 1),
  )
  expect(ham.length).toBeGreaterThan(4_000)
  expect(flagged.length / ham.length).toBeLessThanOrEqual(0.01)
})
