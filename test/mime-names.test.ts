/** No spelling of a file name hides what the file is: E16 to E18 of the catalogue, and names of prototypes (G12). */
import { describe, expect, test } from 'bun:test'
import { fieldValue, fieldValues } from '../src/message/header.ts'
import { Mail } from '../src/message/mime.ts'
import { cte, findingsOf, HEAD, mail } from './mime-world.ts'

/** By the fields of a part with harmless content. */
const held = (...fields: readonly string[]): boolean =>
  findingsOf(mail({ fields: [...fields, cte('base64')], payload: 'dGVzdA==' })).some(
    ({ score }) => score >= 8,
  )
const disposition = (value: string): readonly string[] => [
  'Content-Type: application/octet-stream',
  `Content-Disposition: attachment; ${value}`,
]

const NAMES: Readonly<Record<string, Readonly<Record<string, readonly string[]>>>> = {
  'E16 a name that readers put together differently': {
    'in pieces': disposition('filename*0="x.ex"; filename*1="e"'),
    'in pieces over lines': disposition(
      '\r\n filename*0="x.";\r\n filename*1="ex";\r\n\tfilename*2="e"',
    ),
    'in extended pieces': disposition("filename*0*=utf-8''x.e; filename*1*=%78e"),
    'in pieces, the second extended': disposition('filename*0="x.e"; filename*1*=%78e'),
    'in pieces out of order': disposition('filename*1="e"; filename*0="x.ex"'),
    'in pieces as they stand': disposition('filename*1="x.ex"; filename*0="e"'),
    'a piece is missing, up to it': disposition('filename*0="x.exe"; filename*2=".txt"'),
    'a piece is missing, with all': disposition('filename*0="x.txt"; filename*2=".exe"'),
    'a piece twice': disposition('filename*0="x.exe"; filename*0=".txt"'),
    'both, the plain one runs': disposition("filename=x.exe; filename*=utf-8''x.txt"),
    'both, the extended one runs': disposition("filename=x.txt; filename*=utf-8''x.exe"),
    'both, the pieces run': disposition('filename=x.txt; filename*0=x.; filename*1=exe'),
    'twice, the first runs': disposition('filename=x.exe; filename=x.txt'),
    'twice, the second runs': disposition('filename=x.txt; filename=x.exe'),
    'the name of the type runs': [
      'Content-Type: application/octet-stream; name=x.exe',
      'Content-Disposition: attachment; filename=x.txt',
    ],
    'the name of the disposition runs': [
      'Content-Type: application/octet-stream; name=x.txt',
      'Content-Disposition: attachment; filename=x.exe',
    ],
    'two dispositions': [
      'Content-Type: application/octet-stream',
      'Content-Disposition: attachment; filename=x.txt',
      'Content-Disposition: attachment; filename=x.exe',
    ],
    'the names exchanged': [
      'Content-Type: application/octet-stream; filename=x.exe',
      'Content-Disposition: attachment; name=x.txt',
    ],
    'an encoded word': disposition('filename="=?utf-8?Q?x=2Eexe?="'),
    'two encoded words': disposition('filename="=?utf-8?Q?x=2E?= =?utf-8?B?ZXhl?="'),
    'an encoded word without quotes': disposition('filename==?utf-8?Q?x=2Eexe?='),
    'an encoded word in a piece': disposition('filename*0="=?utf-8?Q?x=2Eexe?="'),
    'an encoded word of another charset': disposition('filename="=?iso-2022-jp?B?eC5leGU=?="'),
    'a quote that never closes': disposition('filename="x.exe; size=3'),
    'a quote that opens late': disposition('filename=x.exe"; size=3'),
    'without quotes, with a blank': disposition('filename=my file x.exe'),
    'a comment inside': disposition('filename=x(comment).exe'),
    'a comment behind': disposition('filename=x.exe (comment)'),
    'a blank before =': disposition('filename =x.exe'),
    'a fold before =': disposition('filename\r\n =x.exe'),
    'odd case': disposition('FileName=X.ExE'),
    'a backslash that escapes': disposition('filename="x\\.e\\xe"'),
    'a backslash of a path': disposition('filename="C:\\temp\\x.exe"'),
    'a percent code without a star': disposition('filename*=x%2Eexe'),
    'an unknown charset': disposition("filename*=x-none''x%2Eexe"),
    'no quote marks in the extended one': disposition('filename*=x.exe'),
    'no semicolon before it': [
      'Content-Type: application/octet-stream; name=x.exe',
      'Content-Disposition: attachment filename=y.txt',
    ],
  },
  'E17 a name that is dressed up': {
    'a turn of direction': disposition("filename*=utf-8''x%E2%80%AEtxt.exe"),
    'a turn of direction, harmless end': disposition("filename*=utf-8''exe.%E2%80%AEtxt"),
    'a NUL behind the extension': disposition("filename*=utf-8''x.exe%00.txt"),
    'a line end behind the extension': disposition("filename*=utf-8''x.exe%0A.txt"),
    'trailing dots': disposition('filename="x.exe..."'),
    'trailing blanks': disposition('filename="x.exe   "'),
    'trailing dots and blanks': disposition('filename="x.exe . . "'),
    'a stream': disposition('filename="x.exe:ads"'),
    'the main stream': disposition('filename="x.exe::$DATA"'),
    '4 KB': disposition(`filename="${'x'.repeat(4_000)}.exe"`),
    '40 KB': disposition(`filename="${'x'.repeat(40_000)}.exe"`),
    'a path': disposition('filename="../../x.exe"'),
    'a path with backslashes': disposition('filename="..\\\\..\\\\x.exe"'),
    'an emoji': disposition("filename*=utf-8''%F0%9F%98%80.exe"),
    'an emoji in the extension': disposition("filename*=utf-8''x.e%E2%80%8Bxe"),
    'a dot in two octets': disposition("filename*=utf-8''x%C0%AEexe"),
    'raw octets, a dot in two': disposition('filename="x\xc0\xaeexe"'),
    'a wide dot': disposition("filename*=utf-8''x%EF%BC%8Eexe"),
    'wide letters': disposition("filename*=utf-8''x.%EF%BD%85%EF%BD%98%EF%BD%85"),
    'a soft hyphen': disposition("filename*=utf-8''x.e%C2%ADxe"),
    'many blanks before the extension': disposition(`filename="x.pdf${' '.repeat(200)}.exe"`),
    'only an extension': disposition('filename=".exe"'),
  },
  'E18 a disposition that is none': {
    attachement: [
      'Content-Type: application/octet-stream',
      'Content-Disposition: attachement; filename=x.exe',
    ],
    'an encoded word': [
      'Content-Type: application/octet-stream',
      'Content-Disposition: =?utf-8?Q?attachment?=; filename=x.exe',
    ],
    csv: ['Content-Type: application/octet-stream', 'Content-Disposition: csv; filename=x.exe'],
    'no word': ['Content-Type: application/octet-stream', 'Content-Disposition: ; filename=x.exe'],
    'the name alone': [
      'Content-Type: application/octet-stream',
      'Content-Disposition: filename=x.exe; x=y',
    ],
    quoted: [
      'Content-Type: application/octet-stream',
      'Content-Disposition: "attachment"; filename=x.exe',
    ],
    inline: ['Content-Type: text/plain', 'Content-Disposition: inline; filename=x.exe'],
    'an image by type': ['Content-Type: image/png', 'Content-Disposition: inline; filename=x.exe'],
    'a NUL in it': [
      'Content-Type: application/octet-stream',
      'Content-Disposition: attach\0ment; filename=x.exe',
    ],
  },
}

for (const [row, cases] of Object.entries(NAMES)) {
  describe(row, () => {
    for (const [name, fields] of Object.entries(cases)) {
      test(`${name}: held`, () => {
        expect(held(...fields)).toBe(true)
      })
    }
  })
}

test('harmless names in every honest spelling are not held', () => {
  for (const value of [
    'filename="report 2026.pdf"',
    "filename*=utf-8''Gr%C3%BC%C3%9Fe.docx",
    'filename*0="a long name that is "; filename*1="in pieces.xlsx"',
    'filename="Grusse.pdf"; filename*=utf-8\'\'Gr%C3%BC%C3%9Fe.pdf',
    'filename="=?utf-8?Q?Gr=C3=BC=C3=9Fe=2Epdf?="',
    'filename="a; b.pdf"',
  ]) {
    expect(held(...disposition(value))).toBe(false)
  }
})

describe('G12 names of prototypes', () => {
  const names = ['__proto__', 'constructor', 'toString', 'hasOwnProperty', 'prototype', 'valueOf']
  test('as fields, types, parameters, charsets and file names change nothing and are read', () => {
    const before = Object.getOwnPropertyNames(Object.prototype).sort().join()
    for (const name of names) {
      const raw = Buffer.from(
        [
          ...HEAD,
          `${name}: a`,
          `Content-Type: ${name}/${name}; ${name}=1; ${name}*0=a; charset=${name}; boundary=${name}`,
          `Content-Disposition: ${name}; filename=${name}; ${name}=x`,
          cte(name),
          '',
          'text',
        ].join('\r\n'),
      )
      expect(findingsOf(raw).filter(({ score }) => score >= 8)).toEqual([])
      const { header, parts } = new Mail(raw)
      expect(fieldValue(header, name.toLowerCase())).toBe('a')
      expect(fieldValues(header, 'valueof2')).toEqual([])
      expect(parts[0]?.names).toEqual([name])
    }
    expect(Object.getOwnPropertyNames(Object.prototype).sort().join()).toBe(before)
    expect(({} as Record<string, unknown>)['a']).toBeUndefined()
  })
  test('a frozen prototype is no hindrance', () => {
    const run = Bun.spawnSync([
      process.execPath,
      '-e',
      `Object.freeze(Object.prototype); const { Mail } = await import('${import.meta.dir}/../src/message/mime.ts'); const m = new Mail(Buffer.from('__proto__: a\\r\\nContent-Type: text/plain; __proto__=b\\r\\n\\r\\nx')); console.log(m.parts.length, m.tree.length)`,
    ])
    expect(run.stdout.toString().trim()).toBe('1 64')
  })
})
