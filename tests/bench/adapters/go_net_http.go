// As small as a push server in Go can be: HTTP in, HTTP/2 out, both of the standard library. For go_net_http.toml.
// usage: go_net_http PORT APNS_PORT CA KEY TOPIC
package main

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"log"
	"net/http"
	"os"
	"time"
)

type push struct {
	Token   string `json:"token"`
	Message string `json:"message"`
}

func main() {
	port, apns, ca, key, topic := os.Args[1], os.Args[2], os.Args[3], os.Args[4], os.Args[5]
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(read(ca))
	client := &http.Client{Transport: &http.Transport{
		TLSClientConfig:   &tls.Config{RootCAs: roots},
		ForceAttemptHTTP2: true,
	}}
	authorization := "bearer " + providerToken(read(key))
	send := func(body io.Reader) (bool, error) {
		var received push
		if err := json.NewDecoder(body).Decode(&received); err != nil {
			return false, err
		}
		payload, err := json.Marshal(map[string]any{"aps": map[string]any{"alert": received.Message}})
		if err != nil {
			return false, err
		}
		url := "https://127.0.0.1:" + apns + "/3/device/" + received.Token
		request, err := http.NewRequest("POST", url, bytes.NewReader(payload))
		if err != nil {
			return false, err
		}
		request.Header.Set("authorization", authorization)
		request.Header.Set("apns-topic", topic)
		request.Header.Set("apns-push-type", "alert")
		response, err := client.Do(request)
		if err != nil {
			return false, err
		}
		defer response.Body.Close()
		_, err = io.Copy(io.Discard, response.Body)
		return response.StatusCode == http.StatusOK, err
	}
	handler := func(answer http.ResponseWriter, request *http.Request) {
		delivered, err := send(request.Body)
		answer.Header().Set("content-type", "application/json")
		if !delivered || err != nil {
			answer.WriteHeader(http.StatusBadGateway)
		}
		fmt.Fprintf(answer, `{"delivered":%t}`, delivered && err == nil)
	}
	log.Fatal(http.ListenAndServe("127.0.0.1:"+port, http.HandlerFunc(handler)))
}

// One for the whole run: it holds for an hour.
func providerToken(file []byte) string {
	block, _ := pem.Decode(file)
	parsed, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		log.Fatal(err)
	}
	head := base64.RawURLEncoding.EncodeToString([]byte(`{"alg":"ES256","kid":"ABC123DEFG"}`))
	claims := fmt.Sprintf(`{"iss":"DEF123GHIJ","iat":%d}`, time.Now().Unix())
	signed := head + "." + base64.RawURLEncoding.EncodeToString([]byte(claims))
	digest := sha256.Sum256([]byte(signed))
	r, s, err := ecdsa.Sign(rand.Reader, parsed.(*ecdsa.PrivateKey), digest[:])
	if err != nil {
		log.Fatal(err)
	}
	signature := make([]byte, 64)
	r.FillBytes(signature[:32])
	s.FillBytes(signature[32:])
	return signed + "." + base64.RawURLEncoding.EncodeToString(signature)
}

func read(path string) []byte {
	file, err := os.ReadFile(path)
	if err != nil {
		log.Fatal(err)
	}
	return file
}
