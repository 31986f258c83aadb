/** A mail with a few words and one attachment. */
export function attached(name: string, content: Uint8Array, words = 'See attached.'): Buffer {
  const packed = Buffer.from(content).toString('base64').replace(/.{76}/g, '$&\r\n')
  return Buffer.from(
    [
      'From: a@sender.example',
      'To: b@ours.example',
      'Subject: File',
      'MIME-Version: 1.0',
      'Content-Type: multipart/mixed; boundary="b1"',
      '',
      '--b1',
      'Content-Type: text/plain; charset=utf-8',
      '',
      words,
      '--b1',
      `Content-Type: application/octet-stream; name="${name}"`,
      'Content-Transfer-Encoding: base64',
      '',
      packed,
      '--b1--',
      '',
    ].join('\r\n'),
  )
}
