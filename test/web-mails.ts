/** Invented mail for the tests of the web: the ordinary day of a gateway, and a hostile one. */
import type { Finding } from '../src/message/verdict.ts'
import type { Mail } from './web-fake.ts'

const found = (rule: string, score: number, evidence: string): Finding => ({
  rule,
  score,
  evidence,
})
const ZIP = found(
  'ARCHIVE_ENCRYPTED',
  8.4,
  'Rechnung-0391.zip is encrypted, so nobody could look inside.',
)
const NAME = found('BAD_ATTACHMENT_NAME', 9.5, 'Lieferschein.pdf.exe is a program.')
const GTUBE = found('GTUBE', 10, 'The message holds the test text GTUBE.')
const EICAR = found('EICAR', 12, 'eicar.zip/eicar.com holds the test virus EICAR.')
const DATE = found('MISSING_DATE', 1, 'The message has no Date.')
const FROM = found('MULTIPLE_FROM', 8, 'The message has 2 From fields.')

const LETTER =
  '<h1>Letzte Mahnung</h1><p>Sehr geehrte Frau Keller,</p><p>trotz mehrfacher Erinnerung ist Ihre Rechnung <b>2026-0391</b> noch offen. Bitte öffnen Sie den Anhang.</p><table><tr><td>Betrag</td><td><b>1.284,50 €</b></td></tr></table>'

export const ORDINARY: readonly Mail[] = [
  {
    sender: 'rechnung@lieferung-portal.example',
    from: 'Ihre Buchhaltung <rechnung@lieferung-portal.example>',
    recipients: ['m.keller@example.com'],
    subject: 'Rechnung 2026-0391: letzte Mahnung',
    findings: [ZIP, FROM.score > 0 ? { ...FROM, score: 2.9 } : FROM],
    state: 'held',
    text: 'Letzte Mahnung',
    html: LETTER,
    attachments: ['Rechnung-0391.zip'],
    insight: {
      tree: null,
      authentication: [
        {
          method: 'spf',
          result: 'pass',
          about: 'lieferung-portal.example',
          evidence: 'The domain names the server 192.0.2.114 as one that may send for it.',
        },
        {
          method: 'dmarc',
          result: 'none',
          about: 'lieferung-portal.example',
          evidence: 'The domain asks for nothing.',
        },
      ],
      authenticated: [],
      urls: ['https://pay.lieferung-portal.example/rechnung?id=2026-0391&session=4f0c77aa01'],
      files: [
        {
          path: 'Rechnung-0391.zip',
          type: 'zip',
          sizeBytes: 183_000,
          sha256: '9c1f04be'.repeat(8),
        },
      ],
    },
    minutesAgo: 1,
  },
  {
    sender: 'j.brandt@steelworks.example',
    recipients: ['einkauf@example.com'],
    subject: 'Re: Offer for the second quarter',
    state: 'delivered',
    reply: '250 2.6.0 Queued mail for delivery',
    minutesAgo: 2,
  },
  {
    sender: 'service@paypa1-secure.example',
    recipients: ['info@example.com'],
    subject: 'Your account is on hold',
    findings: [EICAR, { ...FROM, score: 7.6 }],
    state: 'rejected',
    minutesAgo: 3,
  },
  {
    sender: 'shop@parts.example',
    recipients: ['lager@example.com'],
    subject: 'Order 4471 confirmed',
    state: 'deferred',
    reply: '451 4.7.1 Please try again later',
    minutesAgo: 6,
  },
  {
    sender: 'sara.lindqvist@freemail.example',
    recipients: ['jobs@example.com'],
    subject: 'Bewerbung als Technikerin',
    findings: [DATE],
    unknown: 'attachments',
    state: 'held',
    text: 'Sehr geehrte Damen und Herren, anbei meine Bewerbung.',
    minutesAgo: 9,
  },
  {
    sender: 'k.osei@partner.example',
    recipients: ['t.weber@example.com'],
    subject: 'Minutes of Tuesday',
    state: 'bounced',
    reply: '550 5.1.1 No such mailbox',
    minutesAgo: 14,
  },
  {
    sender: 'offers@bulk-deals.example',
    recipients: ['einkauf@example.com', 'info@example.com', 'lager@example.com'],
    subject: 'Offer: 40 % off office chairs',
    findings: [GTUBE],
    state: 'held',
    text: 'XJS*C4JDBQADN1',
    minutesAgo: 22,
  },
  {
    sender: 'xk29@bulk-deals.example',
    recipients: ['old.account@example.com'],
    subject: null,
    state: 'refused',
    reply: '550 5.1.1 No such recipient',
    minutesAgo: 31,
  },
  {
    sender: 'lab@kensa.example',
    recipients: ['station4@example.com'],
    subject: 'Результаты анализов 2231',
    state: 'delivered',
    reply: '250 2.0.0 Ok: queued as 4F2A',
    minutesAgo: 41,
  },
  {
    sender: '',
    recipients: ['a.ruiz@example.com'],
    subject: 'Undelivered Mail Returned to Sender',
    state: 'delivered',
    reply: '250 2.0.0 Ok',
    minutesAgo: 55,
  },
  {
    sender: 'versand@parts.example',
    recipients: ['lager@example.com'],
    subject: 'Lieferschein',
    findings: [NAME],
    state: 'held',
    text: 'Im Anhang der Lieferschein.',
    attachments: ['Lieferschein.pdf.exe'],
    minutesAgo: 130,
  },
  {
    sender: 'dispo@clinic.example',
    recipients: ['station4@example.com'],
    subject: 'Schichtplan KW 47',
    state: 'queued',
    minutesAgo: 0.1,
  },
  {
    sender: 'nightly@backup.example',
    recipients: ['it@example.com'],
    subject:
      'Backup finished with a subject that is much longer than any column of any list could ever show without cutting it somewhere',
    state: 'inDoubt',
    reply: 'Connection lost after the final dot',
    minutesAgo: 190,
  },
]

/** A day of invented traffic: enough for a plot and a second page. */
export function busyDay(): readonly Mail[] {
  const mails: Mail[] = [...ORDINARY]
  const states = [
    'delivered',
    'delivered',
    'delivered',
    'rejected',
    'delivered',
    'refused',
    'held',
  ] as const
  for (let i = 0; i < 400; i += 1) {
    const state = states[i % states.length] ?? 'delivered'
    const bad = state === 'held' || state === 'rejected'
    mails.push({
      sender: `${['news', 'offers', 'billing', 'team'][i % 4]}@${['weekly', 'bulk-deals', 'steelworks', 'partner'][i % 4]}.example`,
      recipients: [`${['info', 'einkauf', 'm.keller'][i % 3]}@example.com`],
      subject: `${['Newsletter', 'Invoice', 'Meeting', 'Parcel'][i % 4]} ${i}`,
      ...(bad ? { findings: [i % 2 === 0 ? GTUBE : NAME] } : {}),
      state,
      ...(state === 'delivered' ? { reply: '250 2.0.0 Ok' } : {}),
      text: 'Hello',
      minutesAgo: 60 + ((i * 3.3 * (1 + ((i * 7) % 5) / 10)) % 1_380),
    })
  }
  return mails.toSorted((a, b) => a.minutesAgo - b.minutesAgo)
}
