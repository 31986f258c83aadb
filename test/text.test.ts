/** What a mail says and how it is made: topics in five languages, disguises, layout, subject, header; honest mail stays clean. */
import { describe, expect, test } from 'bun:test'
import { Known, PLAIN_CONFIG } from '../src/mail/inspect/look.ts'
import { THEFT } from '../src/mail/inspect/phrases/theft.ts'
import { WARES } from '../src/mail/inspect/phrases/wares.ts'
import { text } from '../src/mail/inspect/text.ts'
import { indexPhrases, phrasesIn, wordsOf } from '../src/mail/inspect/words.ts'
import { CATALOGUE } from '../src/message/catalogue.ts'
import { Mail } from '../src/message/mime.ts'
import type { Finding } from '../src/message/verdict.ts'
import { SESSION } from './look.ts'

const HEADER = {
  From: 'Ann Writer <ann@sender.example>',
  To: 'b@ours.example',
  Subject: 'Hello',
  Date: 'Sun, 22 Nov 2026 10:00:00 +0000',
  'Message-ID': '<1@sender.example>',
  'MIME-Version': '1.0',
  'Content-Type': 'text/plain; charset=utf-8',
}

function mailOf(body: string, fields: Readonly<Record<string, string | null>> = {}): Buffer {
  const lines = Object.entries({ ...HEADER, ...fields }).flatMap(([name, value]) =>
    value === null ? [] : [`${name}: ${value}\r\n`],
  )
  return Buffer.from(`${lines.join('')}\r\n${body}\r\n`)
}

function findingsOf(raw: Buffer): readonly Finding[] {
  return text.inspect({
    mail: new Mail(raw),
    session: SESSION,
    config: PLAIN_CONFIG,
    names: new Known({}),
    model: null,
    note: () => {},
    change: () => {},
  }) as readonly Finding[]
}

const rulesOf = (body: string, fields?: Readonly<Record<string, string | null>>) =>
  findingsOf(mailOf(body, fields)).map(({ rule }) => rule)

const html = { 'Content-Type': 'text/html; charset=utf-8' }

describe('topics', () => {
  const samples: readonly [string, string][] = [
    [
      'TEXT_ADVANCE_FEE',
      'Dear friend, I am Barrister James Ike, attorney to a late client who died with his next of kin. The sum of $ 12.5 million US dollars lies in a dormant account. I seek your confidence for the transfer of the fund to a foreign account.',
    ],
    [
      'TEXT_ADVANCE_FEE',
      'Mon client est décédé sans proche parent et laisse 8 millions de dollars à la banque; il faut un compte: foreign account, next of kin.',
    ],
    [
      'TEXT_LOTTERY',
      'CONGRATULATIONS! Your email won the international lottery. Lucky winner, claim your prize with your ticket number at our claims agent.',
    ],
    [
      'TEXT_LOTTERY',
      'Herzlichen Glückwunsch, Sie haben gewonnen! Ihr Gewinn wartet: Gewinnbenachrichtigung.',
    ],
    [
      'TEXT_EXTORTION',
      'I know your password. I installed malware on a website for adult videos and your webcam recorded you satisfying yourself. Send $ 900 to my bitcoin wallet. You have 48 hours, or I will send the video to all your contacts.',
    ],
    [
      'TEXT_EXTORTION',
      'Ich habe Sie gefilmt, Ihre Webcam lief. Überweisen Sie an die Bitcoin Adresse, sonst geht alles an Ihre Kontakte.',
    ],
    [
      'TEXT_EXTORTION',
      "J'ai piraté votre webcam et vos contacts. Payez à l'adresse bitcoin wallet dans 48 heures.",
    ],
    [
      'TEXT_PHISH',
      'Your mailbox is almost full. Your password will expire today. Click here to verify and keep my password. Failure to comply within 24 hours means your account will be suspended.',
    ],
    [
      'TEXT_PHISH',
      'Sehr geehrter Kunde, Ihr Konto wurde gesperrt. Bitte bestätigen Sie Ihre Daten innerhalb von 24 Stunden.',
    ],
    [
      'TEXT_PHISH',
      'Votre compte a été suspendu. Veuillez confirmer vos informations sous 48 heures.',
    ],
    [
      'TEXT_PHISH',
      'Su cuenta ha sido suspendida. Debe verificar su identidad y actualizar sus datos.',
    ],
    [
      'TEXT_PHISH',
      'Il suo account è stato sospeso. È necessario verificare i suoi dati entro 24 ore.',
    ],
    [
      'TEXT_PARCEL',
      'Your parcel could not be delivered: delivery attempt failed. Pay the customs fee to reschedule your delivery. Tracking number 1234.',
    ],
    [
      'TEXT_PARCEL',
      'Ihr Paket konnte nicht zugestellt werden. Bitte zahlen Sie die Zollgebühren. Sendungsnummer 4711.',
    ],
    ['TEXT_PARCEL', 'Votre colis est en attente. Réglez les frais de livraison.'],
    ['TEXT_PARCEL', 'Su paquete está retenido. Pague los gastos de envío.'],
    ['TEXT_PARCEL', 'Il suo pacco è fermo. Pagare le spese di spedizione.'],
    [
      'TEXT_BOSS',
      "Are you at your desk? I'm in a meeting and can't talk. I need you to get some gift cards and send pictures of the cards. Keep it discreet.",
    ],
    [
      'TEXT_BOSS',
      'Please update our bank details for the outstanding invoice and process the payment today; the new bank account is attached.',
    ],
    [
      'TEXT_BOSS',
      'Bitte beachten Sie die neue Bankverbindung. Die Überweisung heute noch ausführen.',
    ],
    ['TEXT_PILLS', 'Viagra and Cialis, no prescription needed, from our Canadian pharmacy.'],
    [
      'TEXT_LOAN',
      'Bad credit OK! Refinance your home with the lowest mortgage rates, get out of debt, free quote.',
    ],
    [
      'TEXT_INCOME',
      'Work from home and make $ 500 a day. Be your own boss, financial freedom with residual income!',
    ],
    [
      'TEXT_INCOME',
      'Bitcoin trading: double your money with our crypto investment opportunity and earn passive income.',
    ],
    [
      'TEXT_CASINO',
      'Best online casino: welcome bonus, free spins, no deposit bonus, real money slots.',
    ],
    ['TEXT_IMITATION', 'Replica watches: Rolex replica, Cartier watches, luxury watches for less.'],
    [
      'TEXT_OUTREACH',
      'We offer SEO services: rank on Google, quality backlinks, guest posts with high domain authority.',
    ],
    [
      'TEXT_CALL',
      'Act now! Limited time offer, while supplies last. 100% free, no obligation. Order today, call toll free.',
    ],
    [
      'TEXT_REMOVE',
      'This is not spam. To be removed from our list reply with remove in the subject.',
    ],
  ]
  for (const [index, [rule, body]] of samples.entries()) {
    test(`${rule} (${index})`, () => {
      expect(rulesOf(body)).toContain(rule)
    })
  }

  test('evidence names the phrases', () => {
    const found = findingsOf(mailOf('Viagra and Cialis, no prescription needed'))
    expect(found).toEqual([
      {
        rule: 'TEXT_PILLS',
        score: 2,
        evidence:
          'The text speaks of medicine without a doctor: "viagra", "cialis", "no prescription needed".',
      },
    ])
  })

  test('one word makes nobody a thief', () => {
    const mails = [
      'Hi Bob, did you read the paper on Viagra spam?',
      'Ihr Paket wurde heute an den Empfangsbevollmächtigten übergeben. Vielen Dank für Ihre Bestellung.',
      'Your invoice for November is attached. Please let us know if you have questions about the account.',
      'Reset your password by the button below. If you did not ask for it, ignore this mail.',
      'Sehr geehrte Frau Muster, im Anhang erhalten Sie die Rechnung. Bitte überweisen Sie den Betrag bis zum 30. November.',
      'Bonjour, votre commande a été expédiée aujourd’hui. Merci de votre confiance.',
      'Hola, adjunto la factura de noviembre. Su pedido está en camino.',
      'Buongiorno, in allegato la fattura. Il suo ordine è in consegna.',
      'The bitcoin price fell while the central bank met; our contract review is on Monday at 10.',
      'Can you call me when you are at your desk? The meeting moved to 3.',
    ]
    for (const body of mails) expect([body, rulesOf(body)]).toEqual([body, []])
  })
})

describe('phrases', () => {
  const found = (text: string, ...phrases: string[]) => {
    const index = indexPhrases([phrases.join('\n')])
    return (phrasesIn(wordsOf(text, index), index).get(0) ?? []).map(
      ({ words, points }) => `${points} ${words.join(' ')}`,
    )
  }

  test('either word, any word, any number, signs of money', () => {
    expect(found('Win $25,000 today', '$ # now|today')).toEqual(['1 $ # today'])
    expect(found('a very late client', '!a * late')).toEqual(['2 a * late'])
    expect(found('100% FREE', '# % free')).toEqual(['1 # % free'])
    expect(found("don’t wait, don't", "don't wait")).toEqual([])
    expect(found("don't wait", "don't wait")).toEqual(["1 don't wait"])
    expect(found('free', 'free lunch', 'free')).toEqual(['1 free'])
  })

  test('a phrase counts once however often it stands', () => {
    expect(found('act now. act now. act today', 'act now|today')).toHaveLength(1)
  })

  test('each topic has phrases, a sentence and rising steps', () => {
    for (const { rule, about, phrases, steps } of [...THEFT, ...WARES]) {
      expect(rule).toMatch(/^TEXT_[A-Z_]+$/)
      expect(about.length).toBeGreaterThan(5)
      expect(phrases.trim().split('\n').length).toBeGreaterThan(5)
      for (const [index, [points, score]] of steps.entries()) {
        const before = steps[index - 1]
        if (before === undefined) continue
        expect(points).toBeGreaterThan(before[0])
        expect(score).toBeGreaterThan(before[1])
      }
    }
  })
})

describe('disguises', () => {
  for (const [rule, body] of [
    ['TEXT_DISGUISED', 'Cheap V1agra here'],
    ['TEXT_DISGUISED', 'Verify your p-a-y-p-a-l today'],
    ['TEXT_DISGUISED', 'V I A G R A for you'],
    ['TEXT_DISGUISED', 'your p@ssword'],
    ['TEXT_MIXED_SCRIPTS', 'Your раssword for your ассоunt'],
    ['TEXT_ZERO_WIDTH', 'pa\u200bss\u200bwo\u200brd'],
  ] as const) {
    test(`${rule}: ${body}`, () => {
      expect(rulesOf(body)).toEqual([rule])
    })
  }

  test('honest words with digits, lists of letters and other alphabets are left alone', () => {
    for (const body of [
      'Windows 10, i18n, mp3, h264 and b2b in Q4; a1b2c3',
      'a b c d e f g',
      'Добрый день, встреча в понедельник. See you!',
      'می‌خواهم کتاب بخوانم می‌خواهم می‌خواهم می‌خواهم',
      'So\u00adft hy\u00adphens ev\u00adery\u00adwhere',
    ]) {
      expect([body, rulesOf(body)]).toEqual([body, []])
    }
  })
})

describe('layout', () => {
  const shape: readonly [string, string][] = [
    ['HTML_ONLY', '<p>Hello there</p>'],
    ['HTML_IMAGE_ONLY', '<a href="http://a.example/"><img src="http://a.example/b.png"></a>'],
    ['HTML_HIDDEN_TEXT', `<p>Hi</p><p style="display:none">${'lorem ipsum '.repeat(50)}</p>`],
    ['HTML_BROKEN_WORDS', 'v<!--a-->i<!--b-->a<!--c-->g<!--d-->ra'],
    ['HTML_ODD_TAGS', '<qx>a<zz>b<qx>c<qx>d<qx>e'],
    ['HTML_LETTER_BY_LETTER', [...'unsubscribe'].map((char) => `<b>${char}</b>`).join('')],
    ['HTML_REFRESH', '<meta http-equiv="refresh" content="0;url=http://a.example/">'],
    ['HTML_OBJECT', '<object data="http://a.example/x"></object>'],
    ['HTML_FRAME', '<iframe src="http://a.example/"></iframe>'],
    ['HTML_SCRIPT', '<script>x</script>'],
  ]
  for (const [rule, body] of shape) {
    test(rule, () => {
      expect(rulesOf(body, html)).toContain(rule)
    })
  }

  test('a hidden line before a newsletter is usual', () => {
    const body = `<div style="display:none">Our news of this week&zwnj;&nbsp;&zwnj;&nbsp;</div><p>${'News of this week. '.repeat(30)}</p>`
    expect(rulesOf(body, html)).toEqual(['HTML_ONLY'])
  })

  test('plain letters in base64, and charsets that nobody reads', () => {
    const body = Buffer.from('Hello, these are plain letters and no more than that.').toString(
      'base64',
    )
    const fields = { 'Content-Transfer-Encoding': 'base64' }
    expect(rulesOf(body, { ...fields, 'Content-Type': 'text/plain; charset=us-ascii' })).toEqual([
      'TEXT_BASE64',
    ])
    expect(rulesOf(body, fields)).toEqual([])
    expect(rulesOf('x', { 'Content-Type': 'text/plain; charset=utf-7' })).toEqual([
      'TEXT_ODD_CHARSET',
    ])
  })
})

describe('subject and header', () => {
  const cases: readonly [string, Readonly<Record<string, string | null>>][] = [
    ['SUBJECT_CAPITALS', { Subject: 'LIMITED OFFER FOR YOU' }],
    ['SUBJECT_MARKS', { Subject: 'Look at this!!' }],
    ['SUBJECT_MARK', { Subject: 'Look at this!' }],
    ['SUBJECT_MONEY', { Subject: 'You get $500' }],
    ['SUBJECT_PERCENT', { Subject: 'Now 50% less' }],
    ['SUBJECT_GAPS', { Subject: 'Get F R E E stuff' }],
    ['SUBJECT_TAIL', { Subject: 'Hello there           qxzvb' }],
    ['SUBJECT_ADV', { Subject: 'ADV: buy' }],
    ['SUBJECT_NO_ANSWER', { Subject: 'Re: your order' }],
    ['SUBJECT_EMPTY', { Subject: null }],
    ['SUBJECT_RECIPIENT', { Subject: 'bob, look', To: 'bob@ours.example' }],
    ['SUBJECT_MIXED_SCRIPTS', { Subject: 'Your раssword' }],
    ['SUBJECT_NEEDLESS_BASE64', { Subject: '=?iso-8859-1?B?SGVsbG8=?=' }],
    ['MISSING_TO', { To: null }],
    ['TO_UNDISCLOSED', { To: 'undisclosed-recipients:;' }],
    ['TO_IS_FROM', { To: 'ann@sender.example' }],
    ['MESSAGE_ID_ODD', { 'Message-ID': '<nothing>' }],
    [
      'MAILER_FORGED',
      { 'X-Mailer': 'Microsoft Outlook Express 6.00.2800', 'Message-ID': '<x.y@z.example>' },
    ],
    ['MAILER_BULK', { 'X-Mailer': 'Super Bulk Mailer 2' }],
    ['MAILER_HALF_OUTLOOK', { 'X-MSMail-Priority': 'Normal' }],
    ['MISSING_MIME_VERSION', { 'MIME-Version': null, 'Content-Type': 'text/html' }],
    ['DATE_ODD', { Date: 'yesterday' }],
    ['DATE_ZONE', { Date: 'Sun, 22 Nov 2026 10:00:00 -1900' }],
    ['DATE_FUTURE', { Received: 'from a by b; Sat, 21 Nov 2026 09:00:00 +0000' }],
    ['DATE_PAST', { Received: 'from a by b; Sat, 28 Nov 2026 09:00:00 +0000' }],
    [
      'FORGED_PROVIDER',
      {
        From: 'a@gmail.com',
        Received:
          'from evil.example (evil.example [203.0.113.1]) by mx.ours.example; Sun, 22 Nov 2026 10:00:01 +0000',
      },
    ],
    ['FROM_NUMBERS', { From: 'ann19823@sender.example' }],
    ['FROM_CAPITALS', { From: 'CLAIMS OFFICE <ann@sender.example>' }],
  ]
  for (const [rule, fields] of cases) {
    test(rule, () => {
      expect(rulesOf('Hello.', fields)).toContain(rule)
    })
  }

  test('no clock decides: a mail of the future is as old as its servers say', () => {
    const fields = {
      Date: 'Sun, 22 Nov 2099 10:00:00 +0000',
      Received: 'from a by b; Sun, 22 Nov 2099 10:00:05 +0000',
    }
    expect(rulesOf('Hello.', fields)).toEqual([])
  })

  test('what lists and answers have counts for a mail', () => {
    const fields = {
      'List-Id': '<a.b>',
      'List-Unsubscribe': '<http://a.example/>',
      'In-Reply-To': '<1@x>',
    }
    const found = findingsOf(mailOf('> quoted\r\n> more\r\nYes.', { ...fields, Subject: 'Re: x' }))
    expect(found.map(({ rule, score }) => [rule, score])).toEqual([
      ['LIST_HEADERS', -0.8],
      ['ANSWER_QUOTES', -0.8],
    ])
  })

  test('evidence is one clean line that ends as a sentence, whatever the mail holds', () => {
    const nasty = '\u202e\u0007<b>x\ty'
    const fields = {
      From: `${nasty} <123${nasty}@x>`,
      'Message-ID': nasty,
      'X-Mailer': `bulk ${nasty}`,
      Date: nasty,
    }
    for (const { evidence } of findingsOf(mailOf(`v1agra ${nasty}`, fields))) {
      expect(evidence).toMatch(/^[^\x00-\x1f\u202a-\u202e]{10,400}\.$/)
    }
  })
})

test('the table of scores knows every rule about text and links', async () => {
  const known = new Set(CATALOGUE.map(({ rule }) => rule))
  const files = ['deceits', 'disguise', 'links', 'making', 'subject', 'text']
  for (const file of files) {
    const source = await Bun.file(`${import.meta.dir}/../src/mail/inspect/${file}.ts`).text()
    const rules = [...source.matchAll(/(?:rule: |found\(\s*)'([A-Z][A-Z_]+)'/g)].map(
      ([, rule]) => rule ?? '',
    )
    expect(rules.length).toBeGreaterThan(0)
    expect(rules.filter((rule) => !known.has(rule))).toEqual([])
  }
  for (const { rule } of [...THEFT, ...WARES]) expect(known.has(rule)).toBe(true)
})
