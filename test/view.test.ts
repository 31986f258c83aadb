/** What a reader sees of a mail and what it hides: read once, forgiving as mail programs are, in linear time. */
import { describe, expect, test } from 'bun:test'
import { readMarkup } from '../src/mail/inspect/html.ts'
import { viewOf } from '../src/mail/inspect/view.ts'
import { Mail } from '../src/message/mime.ts'

const html = (body: string, charset = 'utf-8') =>
  viewOf(
    new Mail(
      Buffer.concat([
        Buffer.from(`Subject: x\r\nContent-Type: text/html; charset=${charset}\r\n\r\n`),
        Buffer.from(body),
      ]),
    ),
  )

describe('text that is seen', () => {
  const seen: readonly [string, string, string][] = [
    ['words across elements stay words', 'v<b>ia</b>g<i></i>ra', 'viagra'],
    ['words across comments too', 'v<!-- x -->iagra', 'viagra'],
    ['blocks are lines', '<p>a</p><div>b<br>c</div>', 'a\nb\nc'],
    ['cells are apart', '<table><tr><td>a<td>b</table>', 'a b'],
    ['entities', '&lt;b&gt; &amp;amp; &#8364;&#x41;&eacute', '<b> &amp; €Aé'],
    ['blanks', 'a \n\t b&nbsp;&nbsp; c', 'a\nb c'],
    ['a lone <', 'a < b <3 c', 'a < b <3 c'],
    ['invisible characters', 'pass\u200bword\u00ad\ufeff', 'password'],
    ['white on black', '<td bgcolor=black><font color=white>yes</font></td>', 'yes'],
    [
      'a size that comes back',
      '<p style="font-size:0">no<span style="font-size:14px">yes</span></p>',
      'yes',
    ],
    ['a block that ends a hidden paragraph', '<p style="display:none">no<div>yes</div>', 'yes'],
    ['words of Outlook', '<!--[if mso]>yes<![endif]-->', 'yes'],
    ['what no program closes', 'yes<b', 'yes'],
    ['a script is no text', 'a<script>if (a<b) "</b>"</script>b', 'ab'],
    ['an alternative text', '<img alt="yes" src="cid:1">', 'yes'],
    ['NUL', 'y\0es', 'yes'],
  ]
  for (const [what, body, text] of seen) {
    test(what, () => {
      const view = html(body)
      expect(view.text).toBe(text)
      expect(view.hidden).not.toContain('yes')
    })
  }

  const hidden: readonly [string, string][] = [
    ['display', '<p style="display:none">no</p>'],
    ['visibility', '<p style="visibility: hidden">no</p>'],
    ['opacity', '<p style="opacity:0">no</p>'],
    ['size', '<p style="font-size:1px">no</p>'],
    ['size in points', '<p style="FONT-SIZE: 0.5pt !important">no</p>'],
    ['height', '<div style="max-height:0;overflow:hidden">no</div>'],
    ['place', '<div style="position:absolute;left:-9999px">no</div>'],
    ['indent', '<div style="text-indent:-2000px">no</div>'],
    ['white on white', '<p style="color:#fff">no</p>'],
    ['nearly white', '<font color="#fefefe">no</font>'],
    ['colour of the cell', '<td style="background:#123456;color:#123456">no</td>'],
    ['an attribute', '<p hidden>no</p>'],
    ['a class', '<style>.x{display:none}</style><p class="a X">no</p>'],
    ['entities in the style', '<p style="display&#58;none">no</p>'],
    ['inside of it', '<div style="display:none"><p><b>no</b></p></div>'],
  ]
  for (const [what, body] of hidden) {
    test(`hidden by ${what}`, () => {
      const view = html(`${body}yes`)
      expect(view.text).toBe('yes')
      expect(view.hidden).toContain('no')
    })
  }

  test('colours tell nothing where the style is not followed', () => {
    expect(html('<style>.f td{background:#000}</style><p style="color:#fff">yes</p>').text).toBe(
      'yes',
    )
    expect(html('<table background="a.png"><tr><td style="color:#fff">yes</table>').text).toBe(
      'yes',
    )
  })
})

describe('a message', () => {
  const view = (raw: string | Buffer) => viewOf(new Mail(Buffer.from(raw as string, 'latin1')))

  test('text parts and markup are both seen; attached texts are not', () => {
    const part = (type: string, body: string, more = '') =>
      `--b\r\nContent-Type: ${type}\r\n${more}\r\n${body}\r\n`
    const seen = view(
      `Subject: =?utf-8?q?Gr=C3=BC=C3=9Fe?=\r\nContent-Type: multipart/mixed; boundary=b\r\n\r\n${part('text/plain', 'one')}${part('text/html', '<b>two</b>')}${part('text/plain', 'three', 'Content-Disposition: attachment; filename=a.txt\r\n')}${part('application/pdf', 'four')}--b--\r\n`,
    )
    expect(seen).toMatchObject({ subject: 'Grüße', text: 'one\ntwo', plain: 'one', marked: 'two' })
  })

  test('the only text is seen also where it calls itself attached', () => {
    expect(
      view('Content-Type: text/plain\r\nContent-Disposition: attachment\r\n\r\none').text,
    ).toBe('one')
  })

  test('an attached page is markup whatever its type says', () => {
    const page = view(
      'Content-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\n\r\nhi\r\n--b\r\nContent-Type: application/octet-stream; name="login.HTM"\r\n\r\n<form action="http://evil.example/"><input type=password></form>\r\n--b--\r\n',
    )
    expect(page.html).toMatchObject({ forms: 1, passwords: 1 })
    expect(page.links.map(({ host }) => host)).toEqual(['evil.example'])
  })

  test('charsets: as declared, as the markup says, or as the octets are', () => {
    expect(
      view('Content-Type: text/plain; charset=koi8-r\r\n\r\n\xf0\xd2\xc9\xd7\xc5\xd4').text,
    ).toBe('Привет')
    expect(
      view('Content-Type: text/html\r\n\r\n<meta charset=koi8-r>\xf0\xd2\xc9\xd7\xc5\xd4').text,
    ).toBe('Привет')
    expect(view('Content-Type: text/plain\r\n\r\nGr\xc3\xbc\xc3\x9fe').text).toBe('Grüße')
    expect(view('Content-Type: text/plain\r\n\r\nGr\xfc\xdfe').text).toBe('Grüße')
    expect(view('Content-Type: text/plain; charset=nonsense\r\n\r\nhello').text).toBe('hello')
    expect(view('Content-Type: text/plain; charset=utf-16le\r\n\r\nh\0i\0').text).toBe('hi')
  })

  test('is read once for all who look', () => {
    const mail = new Mail(Buffer.from('Subject: x\r\n\r\nhello'))
    expect(viewOf(mail)).toBe(viewOf(mail))
  })

  test('bounds are told: text, markup, links', () => {
    const long = view(`Content-Type: text/plain\r\n\r\n${'word '.repeat(200_000)}`)
    expect(long.text.length).toBe(256 * 1024)
    expect(long.cut).toBe(true)
    const many = html(
      Array.from({ length: 3_000 }, (_, i) => `<a href="http://a.example/${i}">x</a>`).join(''),
    )
    expect(many.links).toHaveLength(1_000)
    expect(many.cut).toBe(true)
    expect(view('\r\nhello').cut).toBe(false)
  })
})

describe('markup without end is read in linear time', () => {
  const evil: readonly [string, string][] = [
    ['open tags', '<div>'],
    ['tags never ended', '<a href="'],
    ['attributes', '<a b '],
    ['comments never closed', '<!-- '],
    ['comments', '<!---->'],
    ['end tags of nothing', '</b>'],
    ['links in links', '<a href=http://a.example/>x'],
    ['scripts never closed', '<script>'],
    ['rules', '<style>a{b:c}</style>'],
    ['entities', '&#x1;&amp'],
    ['less than', '<'],
    ['brackets', '<!--[if '],
    ['quotes', `<a b='"`],
  ]
  for (const [what, piece] of evil) {
    test(what, () => {
      // Quadratic ones take minutes: the limit of the test ends them.
      const read = readMarkup(piece.repeat(Math.ceil(1_000_000 / piece.length)))
      expect(read.facts.chars).toBeGreaterThanOrEqual(1_000_000)
    }, 5_000)
  }
})
