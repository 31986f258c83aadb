/** Links of a mail: where they lead whatever is done to them, and what deceives is said in words. */
import { describe, expect, test } from 'bun:test'
import { judgeLinks, links } from '../src/mail/inspect/links.ts'
import { Known, type Look, PLAIN_CONFIG } from '../src/mail/inspect/look.ts'
import { viewOf } from '../src/mail/inspect/view.ts'
import { Mail } from '../src/message/mime.ts'
import type { Finding, Insight } from '../src/message/verdict.ts'
import { SESSION } from './look.ts'

function mailOf(body: string, type: string, fields = ''): Mail {
  return new Mail(
    Buffer.from(
      `From: Sender <a@sender.example>\r\nSubject: x\r\n${fields}Content-Type: ${type}; charset=utf-8\r\n\r\n${body}`,
    ),
  )
}

const html = (body: string, fields?: string) => mailOf(body, 'text/html', fields)
const plain = (body: string) => mailOf(body, 'text/plain')
const hosts = (mail: Mail) => viewOf(mail).links.map(({ host }) => host)

function judge(mail: Mail): { findings: readonly Finding[]; urls: readonly string[] } {
  const urls: string[] = []
  const look: Look = {
    mail,
    session: SESSION,
    config: {
      ...PLAIN_CONFIG,
      domains: ['ours.example'],
      settings: { ...PLAIN_CONFIG.settings, 'sender.lookalikes': ['bigpartner.example'] },
    },
    names: new Known({}),
    model: null,
    note: (seen: Partial<Insight>) => urls.push(...(seen.urls ?? [])),
    change: () => {},
  }
  return { findings: links.inspect(look) as readonly Finding[], urls }
}

const rules = (mail: Mail) => judge(mail).findings.map(({ rule }) => rule)

describe('a link is found however it is written', () => {
  const evil: readonly [string, string][] = [
    ['plain', '<a href="http://evil.example/x">y</a>'],
    ['without quotes', '<a href=http://evil.example/x>y</a>'],
    ['with a slash for a blank', '<a/href="http://evil.example/x">y</a>'],
    ['never closed', '<a href="http://evil.example/x"'],
    ['quote never closed', '<a href="http://evil.example/x>y</a>'],
    ['blanks around =', '<A HREF \n=\n "http://evil.example/x">y</A>'],
    [
      'two of them: the first counts',
      '<a href="http://evil.example" href="http://good.example">y</a>',
    ],
    ['entities', '<a href="h&#116;tp&colon;&sol;&sol;evil&period;example">y</a>'],
    ['entities without semicolon', '<a href="&#104&#116&#116&#112://evil.example">y</a>'],
    ['line breaks and tabs', '<a href="ht\ntp://ev\til.example/">y</a>'],
    ['control characters before it', '<a href="\u0001 http://evil.example/">y</a>'],
    ['NUL inside', '<a hr\0ef="http://ev\0il.example/">y</a>'],
    ['backslashes', '<a href="http:\\\\evil.example\\x">y</a>'],
    ['one slash', '<a href="https:/evil.example/x">y</a>'],
    ['no scheme', '<a href="//evil.example/x">y</a>'],
    ['escapes in the host', '<a href="http://%65vil.example/">y</a>'],
    ['wide letters', '<a href="http://ｅｖｉｌ．example/">y</a>'],
    ['zero width', '<a href="http://ev\u200bil.example/">y</a>'],
    ['base', '<base href="http://evil.example/a/"><a href="b">y</a>'],
    ['a form', '<form action="http://evil.example/">'],
    ['a button', '<button formaction="http://evil.example/">'],
    ['a frame', '<iframe src="http://evil.example/"></iframe>'],
    ['an area', '<map><area href="http://evil.example/"></map>'],
    ['a refresh', '<meta http-equiv="Refresh" content="0;URL=\'http://evil.example/\'">'],
    ['for Outlook only', '<!--[if mso]><v:rect href="http://evil.example/"></v:rect><![endif]-->'],
    ['behind a comment that a dash ends', '<!--><a href="http://evil.example/">y</a><!-- -->'],
    ['behind a comment that --!> ends', '<!-- x --!><a href="http://evil.example/">y</a>'],
    ['behind a comment never closed', '<!-- <a href="http://evil.example/">y</a>'],
    ['behind a script', '<script>"</scr"</script ><a href="http://evil.example/">y</a>'],
    ['in a vector drawing', '<svg><a xlink:href="http://evil.example/">y</a></svg>'],
  ]
  for (const [what, body] of evil) {
    test(`in markup: ${what}`, () => {
      expect(hosts(html(body))).toContain('evil.example')
    })
  }

  const written: readonly [string, string][] = [
    ['in a sentence', 'See http://evil.com/x, or not.'],
    ['in brackets', 'this (http://evil.com/a_(b)) one'],
    ['without scheme', 'go to evil.com/x now'],
    ['www', 'go to WWW.Evil.COM.'],
    ['a bare domain', 'go to evil.com now'],
    ['hxxp', 'hxxps://evil.com/'],
    ['dots in brackets', 'http://evil[.]com/x'],
    ['dots in words', 'visit evil (dot) com today'],
    ['blanks around the slashes', 'http : // evil.com/x'],
    ['between wide characters', '请访问evil.com获取'],
    ['in angle brackets', '<http://evil.com/x>'],
  ]
  for (const [what, body] of written) {
    test(`in text: ${what}`, () => {
      expect(viewOf(plain(body)).links.map(({ domain }) => domain)).toContain('evil.com')
    })
  }

  test('numbers are addresses in every notation', () => {
    for (const host of ['2130706433', '0x7f000001', '017700000001', '127.1', '0x7f.0.0.1']) {
      expect(hosts(html(`<a href="http://${host}/">y</a>`))).toEqual(['127.0.0.1'])
    }
  })

  test('the address inside another one is a link too', () => {
    const inside = [
      'https://www.google.com/url?q=https%3A%2F%2Fevil.example%2Fx&sa=D',
      'https://www.google.com/amp/s/evil.example/x',
      'https://urldefense.com/v3/__https://evil.example/x__;!!abc',
      'https://urldefense.proofpoint.com/v2/url?u=https-3A__evil.example_x&d=1',
      'https://eur01.safelinks.protection.outlook.com/?url=https%3A%2F%2Fevil.example%2F&data=1',
      `https://www.bing.com/ck/a?!&u=a1${Buffer.from('https://evil.example/x').toString('base64url')}&ntb=1`,
      'https://a.example/?go=https%253A%252F%252Fevil.example',
    ]
    for (const url of inside)
      expect(hosts(html(`<a href="${url}">y</a>`))).toContain('evil.example')
  })

  test('words, files and mail addresses are no links', () => {
    const text =
      'the end.It was main.py, a@b.com, v1.2.3, e.g. this, file.txt and U.S. or 10.5 and a.m.'
    expect(hosts(plain(text))).toEqual([])
  })
})

describe('what deceives is a finding', () => {
  const deceits: readonly [string, Mail][] = [
    ['URL_ZERO_WIDTH', html('<a href="http://pay\u200bpal.com/">y</a>')],
    ['URL_RTL', html('<a href="http://evil.example/\u202egnp.exe">y</a>')],
    ['URL_RTL', html('<a href="http://evil.example/%E2%80%AEgnp.exe">y</a>')],
    ['URL_HOMOGRAPH', html('<a href="http://xn--pypal-4ve.com/">y</a>')],
    ['URL_HOMOGRAPH', html('<a href="http://gооgle.com/">y</a>')],
    ['URL_LOOKALIKE', html('<a href="http://paypa1.com/">y</a>')],
    ['URL_LOOKALIKE', html('<a href="http://rnicrosoft.com/">y</a>')],
    ['URL_LOOKALIKE', html('<a href="http://bigpartnr.example/">y</a>')],
    ['URL_BRAND_IN_HOST', html('<a href="http://www.paypal.com.login.example/">y</a>')],
    ['URL_BRAND_IN_HOST', html('<a href="http://paypal-secure.example/">y</a>')],
    ['URL_USERINFO', html('<a href="http://www.paypal.com@evil.example/">y</a>')],
    ['URL_NUMERIC_IP', html('<a href="http://203.0.113.9/x">y</a>')],
    ['URL_OBSCURED_IP', html('<a href="http://3405803785/x">y</a>')],
    ['URL_ESCAPED_HOST', html('<a href="http://%65vil.example/">y</a>')],
    ['URL_ODD_FORM', html('<a href="http:\\\\evil.example/">y</a>')],
    ['URL_BAD_TLD', html('<a href="http://evil.xyz/">y</a>')],
    ['URL_DATA', html('<a href="data:text/html;base64,PGI+">y</a>')],
    ['URL_SCRIPT', html('<a href="java&#10;script:alert(1)">y</a>')],
    ['URL_FILE', html('<a href="file://203.0.113.9/share/a.doc">y</a>')],
    ['URL_MISMATCH', html('<a href="http://evil.example/">www.paypal.com</a>')],
    ['URL_SHORTENER', plain('http://bit.ly/abc')],
    ['URL_REDIRECTOR', html('<a href="https://www.google.com/url?q=http://evil.example/">y</a>')],
    ['URL_RECIPIENT', html('<a href="https://evil.example/#b@ours.example">y</a>')],
    ['URL_RECIPIENT', html(`<a href="https://evil.example/x#${btoa('b@ours.example')}">y</a>`)],
    ['URL_FORM_PASSWORD', html('<form action="http://evil.example/"><input type="password">')],
    ['URL_DEFANGED', plain('go to evil[.]com')],
  ]
  for (const [index, [rule, mail]] of deceits.entries()) {
    test(`${rule} (${index})`, () => {
      expect(rules(mail)).toContain(rule)
    })
  }

  test('evidence is one clean line that shows where the link leads', () => {
    const { findings } = judge(html('<a href="http://evil.example/">www.paypal.com</a>'))
    expect(findings).toEqual([
      {
        rule: 'URL_MISMATCH',
        score: 4,
        evidence: 'A link shows www.paypal.com and leads to evil.example.',
      },
    ])
    for (const finding of judge(html('<a href="http://e\u202evil.example/\n\u0007">y</a>'))
      .findings) {
      expect(finding.evidence).toMatch(/^[\x20-\x7e]+\.$/)
    }
  })

  test('a rule counts once, and says how many links met it', () => {
    const { findings } = judge(html('<a href="http://a.xyz/">1</a><a href="http://b.xyz/">2</a>'))
    expect(findings).toEqual([
      {
        rule: 'URL_BAD_TLD',
        score: 1,
        evidence:
          'A link leads to a.xyz: domains under .xyz are mostly abused. One more link is of this kind.',
      },
    ])
  })
})

describe('honest links are left alone', () => {
  const honest: readonly [string, Mail][] = [
    ['the same place', html('<a href="https://www.paypal.com/x">paypal.com</a>')],
    ['another suffix of one brand', html('<a href="https://www.paypal.com/x">www.paypal.de</a>')],
    ['words', html('<a href="https://a.example/">Click here.</a>')],
    [
      'a click counter of the sender',
      html('<a href="https://t.sender.example/1">www.shop.com</a>'),
    ],
    [
      'a click counter of a newsletter',
      html(
        '<a href="https://t.esp.com/1">shop.com</a><a href="https://t.esp.com/2">2</a><a href="https://t.esp.com/3">3</a>',
      ),
    ],
    [
      'where the list is left',
      html(
        '<a href="https://t.esp.com/1">shop.com</a>',
        'List-Unsubscribe: <https://esp.com/u>\r\n',
      ),
    ],
    [
      'behind the gateway of the sender',
      html(
        '<a href="https://eu.safelinks.protection.outlook.com/?url=https%3A%2F%2Fshop.com">shop.com</a>',
      ),
    ],
    ['an international name', html('<a href="https://müller.de/">y</a>')],
    ['a Cyrillic name', html('<a href="https://россия.рф/">y</a>')],
    ['our own domain', html('<a href="https://www.ours.example/">y</a>')],
    ['a private address', plain('http://192.168.1.1/admin')],
    ['a line break in the path', html('<a href="https://a.example/x\r\ny">y</a>')],
    ['escapes in the path', html('<a href="https://a.example/%20x?y=%41">y</a>')],
    ['a picture inside', html('<a href="data:image/png;base64,AAAA">y</a>')],
    ['a copied zero width behind it', plain('https://a.example/x\u200b')],
  ]
  for (const [what, mail] of honest) {
    test(what, () => {
      expect(rules(mail)).toEqual([])
    })
  }
})

test('links of a document are judged as those of the message, and noted', () => {
  const urls: string[] = []
  const found = judgeLinks(['http://paypa1.com/x', 'mailto:a@b.com'], 'pdf', {
    config: PLAIN_CONFIG,
    session: SESSION,
    note: (seen) => urls.push(...(seen.urls ?? [])),
  })
  expect(found.map(({ rule }) => rule)).toEqual(['URL_LOOKALIKE'])
  expect(urls).toEqual(['http://paypa1.com/x'])
})

test('at most 100 links are noted, pages before pictures', () => {
  const pictures = Array.from({ length: 150 }, (_, i) => `<img src="http://p.example/${i}">`)
  const { urls } = judge(html(`${pictures.join('')}<a href="http://page.example/">y</a>`))
  expect(urls).toHaveLength(100)
  expect(urls[0]).toBe('http://page.example/')
})
