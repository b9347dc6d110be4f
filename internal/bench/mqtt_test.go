//go:build bench

package bench

import (
	"bufio"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"time"
)

// mqtt is as much of an MQTT 3.1.1 client as the comparison needs: it publishes with
// QoS 1, and receives with QoS 0.
type mqtt struct {
	conn net.Conn
	in   *bufio.Reader
	out  *bufio.Writer
}

// Types of MQTT packets, with their fixed flags.
const (
	mqttConnect    = 0x10
	mqttConnack    = 0x20
	mqttPublish    = 0x30
	mqttPuback     = 0x40
	mqttSubscribe  = 0x82
	mqttSuback     = 0x90
	mqttDisconnect = 0xe0
)

// dialMQTT connects. The broker keeps the session of a lasting one while it is away.
func dialMQTT(address, id string, lasting bool) (*mqtt, error) {
	conn, err := net.DialTimeout("tcp", address, time.Second)
	if err != nil {
		return nil, err
	}
	c := &mqtt{conn: conn, in: bufio.NewReaderSize(conn, 64<<10), out: bufio.NewWriterSize(conn, 64<<10)}
	flags := byte(2)
	if lasting {
		flags = 0
	}
	body := append([]byte{0, 4, 'M', 'Q', 'T', 'T', 4, flags, 0, 0}, text(id)...)
	if err = c.request(mqttConnect, body, mqttConnack); err != nil {
		conn.Close()
		return nil, err
	}
	return c, nil
}

// subscribe asks for a topic.
func (c *mqtt) subscribe(topic string, qos byte) error {
	return c.request(mqttSubscribe, append(append([]byte{0, 1}, text(topic)...), qos), mqttSuback)
}

func (c *mqtt) request(kind byte, body []byte, answer byte) error {
	c.write(kind, body)
	if err := c.out.Flush(); err != nil {
		return err
	}
	c.conn.SetReadDeadline(time.Now().Add(10 * time.Second))
	defer c.conn.SetReadDeadline(time.Time{})
	got, body, err := c.read()
	if err != nil {
		return err
	}
	if got != answer || len(body) == 0 || body[len(body)-1] >= 0x80 || answer == mqttConnack && body[1] != 0 {
		return fmt.Errorf("the broker answers %#x with %#x %x", kind, got, body)
	}
	return nil
}

// publish sends n messages of 1 KB with QoS 1, so many unacknowledged at a time, and
// returns when all are acknowledged.
func (c *mqtt) publish(topic string, n, inFlight int) error {
	body := append(append(text(topic), 0, 0), make([]byte, messageSize)...)
	id := len(text(topic))
	for sent, back := 0, 0; back < n; back++ {
		for ; sent < n && sent-back < inFlight; sent++ {
			binary.BigEndian.PutUint16(body[id:], uint16(sent%65535+1))
			c.write(mqttPublish|2, body)
		}
		if err := c.out.Flush(); err != nil {
			return err
		}
		if kind, _, err := c.read(); err != nil || kind != mqttPuback {
			return fmt.Errorf("message %d: %#x, %v", back, kind, err)
		}
	}
	return nil
}

// next waits for a message and returns its topic.
func (c *mqtt) next(limit time.Duration) (topic string, err error) {
	c.conn.SetReadDeadline(time.Now().Add(limit))
	for {
		kind, body, err := c.read()
		if err != nil {
			return "", err
		}
		if kind&0xf0 == mqttPublish && len(body) > 2 {
			if n := int(binary.BigEndian.Uint16(body)); len(body) >= 2+n {
				return string(body[2 : 2+n]), nil
			}
		}
	}
}

func (c *mqtt) close() {
	c.write(mqttDisconnect, nil)
	c.out.Flush()
	c.conn.Close()
}

// write keeps its error for Flush.
func (c *mqtt) write(kind byte, body []byte) {
	c.out.Write(append(binary.AppendUvarint([]byte{kind}, uint64(len(body))), body...)) // MQTT's lengths are uvarints
}

func (c *mqtt) read() (kind byte, body []byte, err error) {
	if kind, err = c.in.ReadByte(); err != nil {
		return 0, nil, err
	}
	n, err := binary.ReadUvarint(c.in)
	if err != nil || n > 1<<20 {
		return 0, nil, fmt.Errorf("length %d: %w", n, err)
	}
	body = make([]byte, n)
	_, err = io.ReadFull(c.in, body)
	return kind, body, err
}

// text is a string as MQTT writes it.
func text(s string) []byte { return append(binary.BigEndian.AppendUint16(nil, uint16(len(s))), s...) }
